// A hash of what a tokenizer's ids mean.
#pragma once
#include <cstdint>

#include "krait/text/tokenizer.h"

namespace krait::text {

// XXH3-64 over the bytes of every token, in the order of ids, and which are special: the same for one vocabulary in
// different files (tokenizer.json, GGUF). Never 0.
uint64_t content_hash(const Tokenizer&);

}  // namespace krait::text
