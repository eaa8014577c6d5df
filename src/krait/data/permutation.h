// Permutation: 0 .. n-1 in a pseudo-random order that needs no table (a Feistel network over the next power of four,
// walked until it lands below n; Black and Rogaway, CT-RSA 2002).
#pragma once
#include <bit>
#include <cstdint>

#include "krait/core/rng.h"

namespace krait::data {

class Permutation {
 public:
  // One for each (seed, stream); n >= 1.
  Permutation(int64_t n, uint64_t seed, uint64_t stream)
      : n_(static_cast<uint64_t>(n)),
        seed_(seed),
        stream_(stream),
        half_bits_((static_cast<int>(std::bit_width(n_ - 1)) + 1) / 2) {}

  int64_t at(int64_t i) const {
    auto x = static_cast<uint64_t>(i);
    do {
      x = round_trip(x);
    } while (x >= n_);
    return static_cast<int64_t>(x);
  }

 private:
  static constexpr uint64_t kRounds = 6;

  uint64_t round_trip(uint64_t x) const {
    const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
    uint64_t left = x >> half_bits_, right = x & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const auto mixed = philox(seed_, stream_, round << 32 | right);
      const uint64_t next = left ^ (mixed[0] & mask);
      left = right;
      right = next;
    }
    return left << half_bits_ | right;
  }

  uint64_t n_, seed_, stream_;
  int half_bits_;  // at most 32
};

}  // namespace krait::data
