// A tokenizer's files as the metadata of a GGUF file (spec/gguf.md §6).
#pragma once
#include "krait/io/checkpoint.h"
#include "krait/models/export_gguf.h"

namespace krait::cli {

// What goes along with a model into a GGUF file: what a GGUF file says about itself and its tokenizer, or the tokenizer
// of a folder (tokenizer.json, tokenizer.model*) as tokenizer.* keys, padded to the rows of the model's embedding.
// `tokenizer` false: no tokenizer.* keys. Throws kBadData if the tokenizer has no counterpart in GGUF, or does not fit
// the model.
GgufValues accompanying_values(const io::Checkpoint& source, const ModelSpec& spec, bool tokenizer);

}  // namespace krait::cli
