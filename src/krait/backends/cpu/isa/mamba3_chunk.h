// How the gradients of the Mamba-3 scan cut a sequence: chunks of about 16 rows, a row being one rank of one token
// (spec/mamba.md §4.6, §4.7).
#pragma once
#include "krait/backends/cpu/isa/matmul_pack.h"
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

// dst [cols, rows] = src [rows, cols]
static inline void flip(const float* src, int64_t ld_src, int64_t rows, int64_t cols, float* dst, int64_t ld_dst) {
  transpose(reinterpret_cast<const char*>(src), ld_src * 4, rows, cols, dst, ld_dst);
}

KRAIT_INLINE void clear(float* x, int64_t n) {
  for_vectors(n, [&](int64_t i, auto lanes) { store(x + i, zero(), lanes); });
}

// out [N, L] = tile ⊙ weights [L], one a row
KRAIT_INLINE void scale_rows(const float* tile, const float* weights, int64_t N, int64_t L, float* out) {
  for (int64_t l = 0; l < L; l += kLanes) {
    const Vec w = load(weights + l);
    for (int64_t n = 0; n < N; ++n) store(out + n * L + l, mul(load(tile + n * L + l), w));
  }
}

}  // namespace krait::KRAIT_ISA
