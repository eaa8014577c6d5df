// Products of small matrices that live in L1 and L2: the parts of a chunk of a scan.
#pragma once
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {

// Element (row, k) of the left factor stands at p[row·step_row + k·step_k].
struct Factor {
  const float* p;
  int64_t step_row, step_k;
};

// What a product is added to: scale·p, p with the rows of the result; null: nothing.
struct Start {
  const float* p;
  float scale;
};

#ifdef __AVX512F__
constexpr int kProductRows = 8, kProductVecs = 2;
#else
constexpr int kProductRows = 4, kProductVecs = 2;
#endif

template <int kRows, int kV>
KRAIT_INLINE void product_tile(Factor a, const float* b, int64_t ldb, int64_t K, Start start, float* out, int64_t ldo) {
  Vec sums[kRows][kV];
  const Vec scale = set1(start.scale);
  KRAIT_UNROLL for (int r = 0; r < kRows; ++r) {
    KRAIT_UNROLL for (int v = 0; v < kV; ++v) {
      sums[r][v] = start.p != nullptr ? mul(scale, load(start.p + r * ldo + v * kLanes)) : zero();
    }
  }
  for (int64_t k = 0; k < K; ++k, a.p += a.step_k, b += ldb) {
    Vec of_b[kV];
    KRAIT_UNROLL for (int v = 0; v < kV; ++v) of_b[v] = load(b + v * kLanes);
    KRAIT_UNROLL for (int r = 0; r < kRows; ++r) {
      const Vec of_a = broadcast(a.p + r * a.step_row);
      KRAIT_UNROLL for (int v = 0; v < kV; ++v) sums[r][v] = fma(of_a, of_b[v], sums[r][v]);
    }
  }
  KRAIT_UNROLL for (int r = 0; r < kRows; ++r) {
    KRAIT_UNROLL for (int v = 0; v < kV; ++v) store(out + r * ldo + v * kLanes, sums[r][v]);
  }
}

template <int kV>
static void product_columns(int64_t M, int64_t K, Factor a, const float* b, int64_t ldb, Start start, float* out,
                            int64_t ldo) {
  const auto from = [&](int64_t m) -> Start { return {start.p != nullptr ? start.p + m * ldo : nullptr, start.scale}; };
  int64_t m = 0;
  for (; m + kProductRows <= M; m += kProductRows) {
    const Factor rows{a.p + m * a.step_row, a.step_row, a.step_k};
    product_tile<kProductRows, kV>(rows, b, ldb, K, from(m), out + m * ldo, ldo);
  }
  for (; m < M; ++m) {
    const Factor row{a.p + m * a.step_row, a.step_row, a.step_k};
    product_tile<1, kV>(row, b, ldb, K, from(m), out + m * ldo, ldo);
  }
}

// out[m][c] = start[m][c] + Σ_k a(m, k)·b[k][c] for m < M, c < columns (whole vectors), k ascending.
static inline void product(int64_t M, int64_t columns, int64_t K, Factor a, const float* b, int64_t ldb, Start start,
                           float* out, int64_t ldo) {
  const auto from = [&](int64_t c) -> Start { return {start.p != nullptr ? start.p + c : nullptr, start.scale}; };
  int64_t c = 0;
  for (; c + kProductVecs * kLanes <= columns; c += kProductVecs * kLanes) {
    product_columns<kProductVecs>(M, K, a, b + c, ldb, from(c), out + c, ldo);
  }
  for (; c < columns; c += kLanes) product_columns<1>(M, K, a, b + c, ldb, from(c), out + c, ldo);
}

// The same, added to what is there or in its place.
static inline void product(int64_t M, int64_t columns, int64_t K, Factor a, const float* b, int64_t ldb, bool add,
                           float* out, int64_t ldo) {
  product(M, columns, K, a, b, ldb, Start{add ? out : nullptr, 1.0f}, out, ldo);
}

}  // namespace krait::KRAIT_ISA
