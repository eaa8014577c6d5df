// Sums of rows and of columns, each in an order that depends on the sizes only; the largest of a row.
#pragma once
#include "krait/backends/cpu/isa/integers.h"
#include "krait/backends/cpu/isa/tasks.h"
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {

// Σ term(i, lanes) over 0 .. n−1; lanes that do not exist are left out. Over four vectors side by side, then over
// these, then over lanes.
template <class F>
KRAIT_INLINE float sum_of(int64_t n, F term) {
  Vec s[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    KRAIT_UNROLL for (int v = 0; v < 4; ++v) s[v] = add(s[v], term(i + v * kLanes, Whole{}));
  }
  for_vectors(n - i, [&](int64_t j, auto lanes) { s[0] = add(s[0], keep(term(i + j, lanes), lanes)); });
  return sum(add(add(s[0], s[1]), add(s[2], s[3])));
}

template <class F>
KRAIT_INLINE float sum_of_squares(int64_t n, F term) {
  Vec s[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    KRAIT_UNROLL for (int v = 0; v < 4; ++v) {
      const Vec x = term(i + v * kLanes, Whole{});
      s[v] = fma(x, x, s[v]);
    }
  }
  for_vectors(n - i, [&](int64_t j, auto lanes) {
    const Vec x = keep(term(i + j, lanes), lanes);
    s[0] = fma(x, x, s[0]);
  });
  return sum(add(add(s[0], s[1]), add(s[2], s[3])));
}

// The largest of n >= 1. NaN is passed over: a sum of exponentials will show it.
inline float largest(const float* x, int64_t n) {
  const Vec least = set1(-__builtin_inff());
  Vec m[4] = {least, least, least, least};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    KRAIT_UNROLL for (int v = 0; v < 4; ++v) m[v] = max(load(x + i + v * kLanes), m[v]);
  }
  alignas(64) float lanes[kLanes];
  store(lanes, max(max(m[0], m[1]), max(m[2], m[3])));
  float most = lanes[0];
  for (const float f : lanes) most = f > most ? f : most;
  for (; i < n; ++i) most = x[i] > most ? x[i] : most;
  return most;
}

// sum[d] += Σ_t rows[t][d], t ascending from the stored value. rows [T, D], row stride ld. Threads share the columns.
inline void add_rows(const Exec& exec, const float* rows, int64_t ld, int64_t T, int64_t D, float* sum) {
  constexpr int64_t kCols = 4 * kLanes;
  parallel_items(exec, ceil_div(D, kCols), T * 8, [&](int64_t i) {
    const float* from = rows + i * kCols;
    float* to = sum + i * kCols;
    if ((i + 1) * kCols <= D) {
      Vec s[4];
      KRAIT_UNROLL for (int v = 0; v < 4; ++v) s[v] = load(to + v * kLanes);
      for (int64_t t = 0; t < T; ++t) {
        KRAIT_UNROLL for (int v = 0; v < 4; ++v) s[v] = add(s[v], load(from + t * ld + v * kLanes));
      }
      KRAIT_UNROLL for (int v = 0; v < 4; ++v) store(to + v * kLanes, s[v]);
      return;
    }
    for_vectors(D - i * kCols, [&](int64_t d, auto lanes) {
      Vec s = load(to + d, lanes);
      for (int64_t t = 0; t < T; ++t) s = add(s, load(from + t * ld + d, lanes));
      store(to + d, s, lanes);
    });
  });
}

}  // namespace krait::KRAIT_ISA
