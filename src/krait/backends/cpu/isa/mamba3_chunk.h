// How the gradients of the Mamba-3 scan cut a sequence: chunks of about 16 rows, a row being one rank of one token, and
// the small dense products that a chunk is made of (spec/mamba.md §4.6, §4.7).
#pragma once
#include "krait/backends/cpu/isa/vec.h"
#include "krait/kernels/mamba3_scan.h"

namespace krait::KRAIT_ISA {

KRAIT_INLINE int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }

// Rows stand token after token, a token's ranks side by side. Rows stand in the lanes of vectors ("tiles", [·, L]) or
// one below the other; what belongs to no row is zero. Where sizes are padded, it is to a multiple of 16.
struct Mamba3Chunks {
  explicit Mamba3Chunks(const Mamba3ScanParams& p)
      : L(p.R <= 16 ? 16 : padded(p.R)), tokens(L / p.R), Np(padded(p.N)), Pp(padded(p.P)), Fp(padded(p.F)) {
    tile = Np * L;
    int64_t at = 0;
    const auto next = [&at](int64_t n) {
      const int64_t here = at;
      at += padded(n);
      return here;
    };
    keys = next(2 * p.G * tile);
    scales = next(2 * p.G * L);
    tanh = next(tokens * Fp);
    gates = next((tokens + 1) * kGates * p.H);
    shared = at;
  }

  int64_t L, tokens;   // rows and tokens of a chunk
  int64_t Np, Pp, Fp;  // padded sizes
  int64_t tile;        // floats of a tile of keys
  // What heads share of a chunk, in floats from its start:
  int64_t keys;    // [2 (B, C), G, Np, L] normalised, without the norm's weight
  int64_t scales;  // [2, G, L] of the norm
  int64_t tanh;    // [tokens, Fp] tanh(angle)
  int64_t gates;   // [tokens + 1, kGates, H], the last of the token after the chunk
  int64_t shared;  // all of it

  enum Gate { kDt, kAlpha, kLambda, kRest, kSigma, kA, kSlope, kGates };  // dt, α, λ, 1−λ, d dt, A, −dA / d dd_A
};

constexpr int64_t kWindow = 8;  // chunks that are walked back between two sums over heads

// C[m, 0 … NV vectors) = beta·C + Σ_k A[m·sm + k·sk]·B[k, …), M rows; k ascending. beta = 0: C is not read.
template <int M, int NV>
KRAIT_INLINE void product_tile(const float* A, int64_t sm, int64_t sk, int64_t K, const float* B, int64_t ldb,
                               float beta, float* C, int64_t ldc) {
  Vec c[M][NV];
  KRAIT_UNROLL for (int m = 0; m < M; ++m) { KRAIT_UNROLL for (int v = 0; v < NV; ++v) c[m][v] = zero(); }
  for (int64_t k = 0; k < K; ++k, A += sk, B += ldb) {
    Vec b[NV];
    KRAIT_UNROLL for (int v = 0; v < NV; ++v) b[v] = load(B + v * kLanes);
    KRAIT_UNROLL for (int m = 0; m < M; ++m) {
      const Vec a = broadcast(A + m * sm);
      KRAIT_UNROLL for (int v = 0; v < NV; ++v) c[m][v] = fma(a, b[v], c[m][v]);
    }
  }
  KRAIT_UNROLL for (int m = 0; m < M; ++m) {
    KRAIT_UNROLL for (int v = 0; v < NV; ++v) {
      float* at = C + m * ldc + v * kLanes;
      store(at, beta == 0.0f ? c[m][v] : fma(load(at), set1(beta), c[m][v]));
    }
  }
}

template <int M, int NV>
KRAIT_INLINE void product_rows(const float* A, int64_t sm, int64_t sk, int64_t rows, int64_t K, const float* B,
                               int64_t ldb, float beta, float* C, int64_t ldc) {
  int64_t m = 0;
  for (; m + M <= rows; m += M) product_tile<M, NV>(A + m * sm, sm, sk, K, B, ldb, beta, C + m * ldc, ldc);
  for (; m < rows; ++m) product_tile<1, NV>(A + m * sm, sm, sk, K, B, ldb, beta, C + m * ldc, ldc);
}

// C [rows, cols] = beta·C + A·B, B [K, cols], A's element (m, k) at m·sm + k·sk; cols a multiple of 16.
static inline void product(const float* A, int64_t sm, int64_t sk, int64_t rows, int64_t K, const float* B, int64_t ldb,
                           int64_t cols, float beta, float* C, int64_t ldc) {
  int64_t v = 0;
#ifdef __AVX512F__
  for (; v + 64 <= cols; v += 64) product_rows<4, 4>(A, sm, sk, rows, K, B + v, ldb, beta, C + v, ldc);
  for (; v < cols; v += 16) product_rows<8, 1>(A, sm, sk, rows, K, B + v, ldb, beta, C + v, ldc);
#else
  for (; v < cols; v += 16) product_rows<4, 2>(A, sm, sk, rows, K, B + v, ldb, beta, C + v, ldc);
#endif
}

}  // namespace krait::KRAIT_ISA
