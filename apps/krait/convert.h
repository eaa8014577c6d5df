// Writing a checkpoint in another form: the work of krait convert and krait export.
#pragma once
#include <string>

namespace krait::cli {

struct ConvertArgs {
  std::string model, out;
  std::string to = "auto";     // auto, safetensors, gguf, hf, original
  std::string dtype = "file";  // file, f32, bf16, f16
  bool force = false, no_tokenizer = false;
};

// Returns the exit code. Throws as commands do.
int convert(const ConvertArgs&);

}  // namespace krait::cli
