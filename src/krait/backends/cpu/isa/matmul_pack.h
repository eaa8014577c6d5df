// Packing of weights and activations for the matmul (layouts: matmul_tile.h).
#pragma once
#include "krait/backends/cpu/isa/matmul_tile.h"

namespace krait::KRAIT_ISA {

// How activations enter the products.
enum class XForm { kF32, kRounded, kPairs, kSplitPairs };  // f32; f32 rounded to bf16; bf16 pairs; (high, low) pairs

// 4-byte elements of one packed row of K activations.
constexpr int64_t x_elements(XForm form, int64_t K) {
  return form == XForm::kSplitPairs ? (K + 1) / 2 * 2 : form == XForm::kPairs ? (K + 1) / 2 : K;
}

// Rows [rows, K] of x -> one panel of MR >= rows rows; the missing ones become zero.
void pack_x(XForm form, const float* x, int64_t ldx, int rows, int64_t K, int MR, float* panel);

// dst[c][r] = src[r][c] for 4-byte elements; src rows are `ld_src` bytes apart, dst rows `ld_dst` elements.
void transpose(const char* src, int64_t ld_src, int64_t rows, int64_t cols, float* dst, int64_t ld_dst);

}  // namespace krait::KRAIT_ISA
