// What check_kernels() runs: each case one kernel, on inputs that are the same each time.
#pragma once
#include <array>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "krait/core/rng.h"
#include "krait/kernels/kernel_set.h"

namespace krait::kernel_check {

using Floats = std::vector<float>;

// Sums in another order and functions in f32 differ by some 1e-7; a kernel that is wrong differs by far more than this.
inline constexpr double kBound = 1e-5;

// Three sequences, one of them empty, in slots out of order.
inline constexpr std::array<int64_t, 4> kOffsets{0, 5, 5, 14};
inline constexpr std::array<int32_t, 3> kSlots{2, 0, 1};
inline constexpr int64_t kTokens = kOffsets.back(), kSlotCount = 3;
inline constexpr SpanView kSpans{kOffsets.data(), kSlots.data(), 3};

// Runs one kernel of a set; the outputs and states it leaves.
using Case = std::function<Floats(const KernelSet&, const Exec&)>;

struct NamedCase {
  std::string name;
  Case run;
  double bound = kBound;
};

inline Floats normals(int64_t n, uint64_t seed, double scale = 1) {
  Rng rng(seed, 5);
  Floats v(static_cast<size_t>(n));
  for (float& f : v) f = static_cast<float>(scale * rng.normal());
  return v;
}

inline Floats negative(int64_t n, uint64_t seed) {
  Floats v = normals(n, seed);
  for (float& f : v) f = -std::exp(f);
  return v;
}

inline Floats joined(std::initializer_list<const Floats*> parts) {
  Floats all;
  for (const Floats* p : parts) all.insert(all.end(), p->begin(), p->end());
  return all;
}

struct Mamba3Sizes {
  int64_t H, P, N, G, R, F;
  RotaryPairing pairing;
  bool out_norm;
};

std::vector<NamedCase> gradient_cases();

}  // namespace krait::kernel_check
