#include "krait/infer/exp_row.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

namespace krait {
namespace {

constexpr size_t kLanes = 4;
using F64 [[gnu::vector_size(kLanes * sizeof(double))]] = double;
using I64 [[gnu::vector_size(kLanes * sizeof(int64_t))]] = int64_t;
using F32 [[gnu::vector_size(kLanes * sizeof(float))]] = float;

// e^x = 2^n e^r with |r| <= ln 2 / 2: Cody and Waite's reduction, then the Taylor series to r^13 (error below 1e-17) in
// Estrin's order, whose short chains of operations overlap. No fused multiply-adds: some instruction sets have none.
[[gnu::always_inline]] inline void exp_lanes(const F64& in, F64& out) {
  constexpr double kLeast = -708, kRound = 0x1.8p52, kLog2E = 0x1.71547652b82fep0;
  constexpr double kLn2High = 0x1.62e42feep-1, kLn2Low = 0x1.a39ef35793c76p-33;
  const I64 tiny = in < kLeast;
  const F64 x = tiny ? F64{} : in;
  const F64 shifted = x * kLog2E + kRound;  // its low bits are n
  const F64 n = shifted - kRound;
  const F64 r = (x - n * kLn2High) - n * kLn2Low;
  const F64 r2 = r * r, r4 = r2 * r2;
  const F64 p2 = r * (1.0 / 6) + 1.0 / 2, p4 = r * (1.0 / 120) + 1.0 / 24, p6 = r * (1.0 / 5040) + 1.0 / 720;
  const F64 p8 = r * (1.0 / 362880) + 1.0 / 40320, p10 = r * (1.0 / 39916800) + 1.0 / 3628800;
  const F64 p12 = r * (1.0 / 6227020800) + 1.0 / 479001600;
  const F64 low = p4 * r2 + p2, middle = p8 * r2 + p6, high = p12 * r2 + p10;
  const F64 p = ((high * r4 + middle) * r4 + low) * r2 + r + 1.0;
  constexpr int kMantissa = 52, kBias = 1023;
  const I64 scale = ((I64)shifted + kBias) << kMantissa;  // casts of vectors keep the bits
  out = tiny ? F64{} : p * (F64)scale;
}

// Four logits, −infinity behind the end.
[[gnu::always_inline]] inline F32 load(const float* logits, size_t i, size_t n) {
  F32 part = F32{} - std::numeric_limits<float>::infinity();
  if (i + kLanes <= n) {
    std::memcpy(&part, logits + i, sizeof part);
  } else {
    std::memcpy(&part, logits + i, (n - i) * sizeof(float));
  }
  return part;
}

// The weights of `part`, written to `weights` and added to `sum`.
[[gnu::always_inline]] inline void weigh(const F32& part, double best, double temperature, double* weights, F64& sum) {
  F64 x = __builtin_convertvector(part, F64) - best;
  if (temperature != 1) x /= temperature;  // nothing changes by 1, and a division takes its time
  F64 w;
  exp_lanes(x, w);
  std::memcpy(weights, &w, sizeof w);
  sum += w;
}

[[gnu::always_inline]] inline void row_body(const float* logits, size_t n, float best, double temperature,
                                            double* weights, double* sums) {
  for (size_t from = 0; from < n; from += kRowBlock) {
    F64 sum{};
    if (from + kRowBlock <= n) {
      for (size_t i = from; i < from + kRowBlock; i += kLanes) {
        F32 part;
        std::memcpy(&part, logits + i, sizeof part);
        weigh(part, best, temperature, weights + i, sum);
      }
    } else {
      for (size_t i = from; i < n; i += kLanes) weigh(load(logits, i, n), best, temperature, weights + i, sum);
    }
    sums[from / kRowBlock] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }
}

[[gnu::always_inline]] inline float largest_body(const float* logits, size_t n) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  F32 most = F32{} - kInf;
  auto wrong = most > 0;
  for (size_t i = 0; i < n; i += kLanes) {
    const F32 part = load(logits, i, n);
    most = part > most ? part : most;
    wrong |= !(part < kInf);
  }
  if ((wrong[0] | wrong[1] | wrong[2] | wrong[3]) != 0) return std::numeric_limits<float>::quiet_NaN();
  return std::max(std::max(most[0], most[1]), std::max(most[2], most[3]));
}

using Row = void (*)(const float*, size_t, float, double, double*, double*);
using Largest = float (*)(const float*, size_t);

void row_any(const float* l, size_t n, float b, double t, double* w, double* s) { row_body(l, n, b, t, w, s); }
float largest_any(const float* l, size_t n) { return largest_body(l, n); }

#ifdef __x86_64__
[[gnu::target("avx2")]] void row_avx2(const float* l, size_t n, float b, double t, double* w, double* s) {
  row_body(l, n, b, t, w, s);
}
[[gnu::target("avx2")]] float largest_avx2(const float* l, size_t n) { return largest_body(l, n); }
Row choose_row() { return __builtin_cpu_supports("avx2") ? row_avx2 : row_any; }
Largest choose_largest() { return __builtin_cpu_supports("avx2") ? largest_avx2 : largest_any; }
#else
Row choose_row() { return row_any; }
Largest choose_largest() { return largest_any; }
#endif

}  // namespace

float largest(std::span<const float> logits) {
  static const Largest f = choose_largest();
  return f(logits.data(), logits.size());
}

void exp_row(std::span<const float> logits, float best, double temperature, std::span<double> weights,
             std::span<double> sums) {
  static const Row f = choose_row();
  f(logits.data(), logits.size(), best, temperature, weights.data(), sums.data());
}

}  // namespace krait
