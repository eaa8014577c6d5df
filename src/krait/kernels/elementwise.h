// Small ops: gates, residual add, embedding lookup.
#pragma once
#include <cstdint>

#include "krait/core/dtype.h"

namespace krait {

// out = a · silu(gate), silu(u) = u / (1 + e^-u)
struct SiluGateParams {
  const float* a;  // [T, D], row stride lda
  int64_t lda;
  const float* gate;  // [T, D], row stride ldg
  int64_t ldg;
  float* out;  // [T, D], row stride ldo; may be a
  int64_t ldo;
  int64_t T, D;
};

// y += x
struct AddParams {
  const float* x;  // [T, D], row stride ldx
  int64_t ldx;
  float* y;  // [T, D], row stride ldy
  int64_t ldy;
  int64_t T, D;
};

// y[t] = f32(table[ids[t]]); ids are already checked to lie in [0, V)
struct EmbedParams {
  const void* table;  // [V, D] row-major contiguous, `dtype`: kF32, kBF16, kF16 or a block type
  DType dtype;
  const int32_t* ids;  // [T]
  float* y;            // [T, D] contiguous
  int64_t T, D;
};

}  // namespace krait
