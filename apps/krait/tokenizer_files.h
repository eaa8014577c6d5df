// The files that make up a tokenizer, as they travel from folder to folder with a model.
#pragma once
#include <string>
#include <vector>

namespace krait::cli {

struct TokenizerFile {
  std::string name, content;
};

// Whether a file of that name travels with a model as it is.
bool travels_with_model(const std::string& name);

// Those of a folder; or one vocabulary file (tokenizer.json, whatever it is called, or tokenizer.model, …) and what
// stands beside it; or the tokenizer.json inside a GGUF file. Throws kFailed if they cannot be read, kBadData if a GGUF
// file has none.
std::vector<TokenizerFile> read_tokenizer_files(const std::string& path);

}  // namespace krait::cli
