// SentencePiece's BPE: the adjacent pair whose concatenation is the piece of highest score is joined, leftmost on ties.
#pragma once
#include <cstdint>
#include <functional>
#include <string_view>
#include <unordered_map>

#include "krait/text/piece_trie.h"

namespace krait::text {

struct SpmBpePiece {
  int32_t id;
  float score;
  bool unused;  // joined like any other, then taken apart again
};
using SpmBpePieces = std::unordered_map<std::string_view, SpmBpePiece>;

// Calls emit(piece) in order. Starts from characters and whole `user_defined` pieces, which are not joined further.
// O(n log n) in the length of `text`, which must be valid UTF-8.
void spm_bpe(std::string_view text, const SpmBpePieces&, const PieceTrie& user_defined,
             const std::function<void(std::string_view)>& emit);

}  // namespace krait::text
