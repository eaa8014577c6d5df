// Counter-based random numbers (Philox 4x32-10, Salmon et al., SC 2011): value i of stream (seed, stream) is a pure
// function of (seed, stream, i), so draws never depend on what else ran, and resuming needs only the counter.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace krait {

inline std::array<uint32_t, 4> philox(uint64_t seed, uint64_t stream, uint64_t counter) {
  std::array<uint32_t, 4> x{static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32),
                            static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)};
  auto k0 = static_cast<uint32_t>(seed);
  auto k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * x[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * x[2];
    x = {static_cast<uint32_t>(p1 >> 32) ^ x[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ x[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return x;
}

// A cursor over one stream.
class Rng {
 public:
  explicit Rng(uint64_t seed, uint64_t stream = 0, uint64_t counter = 0)
      : seed_(seed), stream_(stream), counter_(counter) {}

  uint64_t next_u64() {
    const auto x = philox(seed_, stream_, counter_++);
    return (uint64_t{x[1]} << 32) | x[0];
  }
  // Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next_u64() >> 11) * 0x1p-53; }
  double uniform(double lo, double hi) { return lo + (hi - lo) * uniform(); }
  // Standard normal (Box-Muller, one value a draw).
  double normal() {
    const auto x = philox(seed_, stream_, counter_++);
    const double u = (static_cast<double>(x[0]) + 0.5) * 0x1p-32;
    const double v = static_cast<double>(x[1]) * 0x1p-32;
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }
  // Uniform in 0 .. n-1, n >= 1 (multiply-shift; bias below 2^-32 for n < 2^32).
  uint64_t below(uint64_t n) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<uint64_t>((static_cast<Wide>(next_u64()) * n) >> 64);
  }
  uint64_t counter() const { return counter_; }

 private:
  uint64_t seed_, stream_, counter_;
};

// n numbers in 0 .. below-1.
inline std::vector<int32_t> random_integers(int64_t n, int64_t below, Rng rng) {
  std::vector<int32_t> v(static_cast<size_t>(n));
  for (int32_t& x : v) x = static_cast<int32_t>(rng.below(static_cast<uint64_t>(below)));
  return v;
}

}  // namespace krait
