// What most commands begin with: a model, its tokenizer, the threads to run on.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "cli.h"
#include "krait/models/load.h"
#include "krait/text/tokenizer.h"
#include "resident.h"

namespace krait::cli {

struct ModelArgs {
  std::string model;                    // folder or file; empty: the shipped model
  std::string tokenizer;                // file or folder; empty: beside the model, or inside the GGUF file
  int64_t threads = 0;                  // 0: all CPUs this process may use
  std::string compute = "f32";          // f32, bf16x2, bf16
  std::string weights = "file";         // file, f32, bf16, f16
  std::string backend = "auto";         // a kernel set by name
  std::vector<std::string> lora;        // folders of adapters, DIR or DIR=SCALE: what they add is added up
  std::vector<std::string> named_lora;  // NAME=DIR or NAME=DIR=SCALE: adapters to choose from; none by default
  const KernelSet& (*wrap)(const KernelSet&) = nullptr;  // what to make of that set (bench_profile.h)
};

// What of a model a command has a use for: options without an effect are not declared.
struct ModelUse {
  bool tokenizer = true, threads = true, lora = false;
};
// Declares the options above. `positional`: MODEL is also the first argument.
void add_model_options(Command& command, ModelArgs& args, bool positional, bool model_required, ModelUse use = {});

struct Session {
  std::unique_ptr<ThreadPool> pool;
  LoadedModel loaded;
  Resident before, with_model, with_tokenizer;  // memory as the parts came
  std::unique_ptr<text::Tokenizer> tokenizer;   // null if `open_session` was told to do without, or there is none

  const Model& model() const { return *loaded.model; }
  // Ids that may be sampled: below the model's vocabulary and known to the tokenizer.
  int64_t sampled_vocab() const;
};

enum class NeedTokenizer : uint8_t { kNo, kIfThere, kYes };
// Throws kBadData / kUsage with the reason; with kYes also if there is no tokenizer.
Session open_session(const ModelArgs& args, NeedTokenizer need);

// NAME=DIR or NAME=DIR=SCALE, in parts. Throws kUsage if it is neither.
struct NamedAdapter {
  std::string name, folder;
  double scale = 1;
};
NamedAdapter split_named(const std::string& text);
// DIR or DIR=SCALE of each; all that they add as one adapter.
Adapter read_adapters(const std::vector<std::string>& lora, const ModelSpec& spec);

Runtime make_runtime(const ModelArgs& args, ThreadPool& pool);
std::unique_ptr<ThreadPool> make_pool(int64_t threads);

// Where the shipped model stands: beside the program or in its source tree; throws kUsage if it is not there.
std::string shipped_model();

// `text` if it is UTF-8. What is not becomes U+FFFD if `lossy`; else it is kBadData, with the place. `name`: what it
// is.
std::string require_utf8(std::string text, const std::string& name, bool lossy);
// Throws kBadData if the tokenizer has more ids than the model's rows of logits.
void check_vocabulary(const text::Tokenizer& tokenizer, int64_t padded_vocab_size);
// The tokenizer of a checkpoint: inside GGUF, or beside the weights. Null if there is none.
std::unique_ptr<text::Tokenizer> find_tokenizer(const io::Checkpoint& checkpoint);
// A tokenizer by itself: a folder, tokenizer.json, *.model, a GGUF file, or a RWKV vocabulary.
std::unique_ptr<text::Tokenizer> open_any_tokenizer(const std::string& path);

}  // namespace krait::cli
