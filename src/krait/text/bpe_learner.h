// learn_bpe: byte-pair merges from counted pieces (Sennrich et al., 2016), the count of every pair kept up to date.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "krait/text/piece_counts.h"

namespace krait::text {

struct LearnedMerge {
  int32_t left, right, result;  // indices of tokens
};

struct LearnedBpe {
  std::vector<std::string> tokens;  // bytes of each; the first 256 are the bytes in the order of their characters
  std::vector<LearnedMerge> merges;
};

struct LearnBpeOptions {
  int64_t n_tokens = 0;   // at most this many, the 256 bytes among them
  int64_t min_count = 1;  // a rarer pair is not merged
  std::function<void(int64_t tokens)> progress = nullptr;
};

// The most frequent pair is merged first; of equally frequent ones that with the smaller left token, then the smaller
// right token (the rule of the tokenizers package). A pair that overlaps itself ("aaa") is counted at every place. Two
// merges may have one result.
LearnedBpe learn_bpe(const PieceCounts&, const LearnBpeOptions&);

}  // namespace krait::text
