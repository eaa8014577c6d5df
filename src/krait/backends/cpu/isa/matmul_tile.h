// Register tiles of the matmul: the types shared by its driver, packing and microkernels.
//
// A packed weight is a row of panels of 16 output columns. Within a panel k runs slowest:
//   f32 [K][16]    f16 [K][16]    bf16 [ceil(K/2)][16][2], the pair (2k, 2k+1) as vdpbf16ps reads it
// Activations are packed as panels of MR rows: [K][MR] f32, or [ceil(K/2)][parts][MR] pairs of bf16.
// Every kernel adds the products of one output in ascending k into one accumulator, so a tile's size never shows.
#pragma once
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {

constexpr int kPanel = 16;

// The halves of pairs of bf16, as f32.
#ifdef __AVX512F__
KRAIT_INLINE Vec even_bf16(Vec pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16)); }
KRAIT_INLINE Vec odd_bf16(Vec pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32(-65536)));
}
#else
KRAIT_INLINE Vec even_bf16(Vec pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs), 16)); }
KRAIT_INLINE Vec odd_bf16(Vec pairs) {
  return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(pairs), _mm256_set1_epi32(-65536)));
}
#endif

// Row counts a tile can have, and log2 of the most panels it can span: what the register file holds.
#ifdef __AVX512F__
constexpr int kClasses = 5;
constexpr int kClassRows[kClasses] = {1, 2, 4, 6, 12};
constexpr int kClassLogPanels[kClasses] = {3, 3, 2, 2, 1};
#else
constexpr int kClasses = 4;
constexpr int kClassRows[kClasses] = {1, 2, 4, 6};
constexpr int kClassLogPanels[kClasses] = {2, 1, 0, 0};
#endif
constexpr int kMaxRows = kClassRows[kClasses - 1];
constexpr int kMaxTile = 384;  // floats of the biggest tile

struct Tile {
  const float* x;    // packed activations at the block's first k (pairs of bf16 for the dot kernels)
  const char* w;     // first panel at the block's first k
  int64_t w_stride;  // bytes from one panel to the next
  int64_t k;         // products to add; even except in the last block of an odd K
  float* y;          // [MR, 16·panels], row stride ldy
  int64_t ldy;
  const float* bias;  // [16·panels] or null; null except in the last block
  bool carry;         // y holds the sum over earlier blocks, else the sum starts from 0
};

using TileKernel = void (*)(const Tile&);

struct TileKernels {
  TileKernel at[kClasses][4];  // [class][log2 of panels]
};

// Products in f32 with f32, f16 and bf16 weights.
const TileKernels& tiles_f32();
const TileKernels& tiles_f16();
const TileKernels& tiles_bf16();
#ifdef __AVX512BF16__
// vdpbf16ps with bf16 activations, and with activations split into two bf16 parts.
const TileKernels& tiles_dot1();
const TileKernels& tiles_dot2();
#endif

}  // namespace krait::KRAIT_ISA
