// A tokenizer's files as the metadata of a GGUF file (spec/gguf.md §6).
#pragma once
#include <filesystem>

#include "krait/models/export_gguf.h"

namespace krait::cli {

// The tokenizer of a folder (tokenizer.json, tokenizer.model*) as tokenizer.* keys, padded to the rows of the model's
// embedding; empty if the folder has none. Throws kBadData if it has no counterpart in GGUF, or does not fit the model.
GgufValues gguf_vocabulary(const std::filesystem::path& folder, const ModelSpec& spec);

// What a GGUF file says about itself and its tokenizer, to be carried over into another one.
GgufValues carried_over(const io::Gguf& source);

}  // namespace krait::cli
