// CheckpointOut: the folder or GGUF file in which a command leaves a model, whole or as it was before.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "krait/models/load.h"
#include "out_folder.h"

namespace krait::cli {

struct CheckpointOutArgs {
  std::string command;      // "convert", for messages
  std::string out;          // a folder, or a file that ends in .gguf
  std::string to = "auto";  // auto, safetensors, gguf, hf, original
  bool force = false, no_tokenizer = false;
};

// A model as it was read, or as a command changed it.
struct ModelSource {
  std::shared_ptr<const io::Checkpoint> checkpoint;
  ModelSpec spec;
  ParamStore params;
};
// `dtype`: file, f32, bf16, f16: what matrices are converted to.
ModelSource read_model(const std::string& command, const std::string& path, const std::string& dtype);

class CheckpointOut {
 public:
  // Throws kUsage or kFailed if OUT cannot be written as that. Touches nothing.
  explicit CheckpointOut(CheckpointOutArgs args);
  // With the tokenizer of the checkpoint that the model came from. Says on stderr what it wrote.
  void write(const ModelSource& source);

 private:
  void write_folder(const ModelSource& source);

  CheckpointOutArgs args_;
  std::optional<OutFolder> folder_;  // none: a GGUF file
};

}  // namespace krait::cli
