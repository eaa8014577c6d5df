// TokenHistory: what a sequence remembers of the tokens it has read: how many, a hash of them all, and as much of them
// as the sampler's penalties can ask for. A pure function of the tokens, so that a State can be resumed with any
// options.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "krait/infer/token_counts.h"

namespace krait {

class TokenHistory {
 public:
  // Ids kept in order: the widest penalty window there is, short of "all tokens".
  static constexpr int64_t kRecent = 4096;

  void push(int32_t id);
  void push(std::span<const int32_t> ids);

  int64_t position() const { return position_; }         // tokens read
  uint64_t hash() const { return hash_; }                // rolling XXH3-64 over the ids; 0 at position 0
  std::span<const int32_t> recent() const;               // the last min(position, kRecent), oldest first
  const TokenCounts& counts() const { return counts_; }  // of every id read so far

  // The hash of a history with this hash after `ids` more: what hash() gives, without the rest of a history.
  static uint64_t extend(uint64_t hash, std::span<const int32_t> ids);

  // Occurrences among the last `window` tokens (0 <= window <= kRecent), or among all of them (-1).
  TokenCounts counts_within(int64_t window) const;

  // Puts a saved history together again; throws kBadData if the parts contradict each other.
  static TokenHistory from_parts(uint64_t hash, std::vector<int32_t> recent, TokenCounts counts);

  bool operator==(const TokenHistory&) const;

 private:
  int64_t position_ = 0;
  uint64_t hash_ = 0;
  std::vector<int32_t> recent_;  // recent() at its end, and less than as much again before it
  TokenCounts counts_;
};

}  // namespace krait
