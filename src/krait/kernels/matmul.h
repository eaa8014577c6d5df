// y = x · Wᵀ (+ bias). The only op that sees weights in their stored dtype.
#pragma once
#include <cstddef>
#include <cstdint>

#include "krait/core/dtype.h"

namespace krait {

// Arithmetic of the products. Accumulation is f32 in every case. Block types have one of their own, whatever this says:
// activations are quantized to 8 bits by row and 32 columns, so that products are integers
// (kernels/reference/block_matmul.h).
enum class Compute : uint8_t {
  kF32,     // f32 activations; 16-bit weights are widened exactly
  kBF16x2,  // activations split into two bf16 halves: x ≈ hi + lo (bf16 weights only; others compute as kF32)
  kBF16,    // activations rounded to bf16 (bf16 weights only; others compute as kF32)
};

// Row invariance (the exactness contract): y[m][n] is a function of row m of x, row n of W and bias[n] alone. Each
// output accumulates over K in one fixed order that depends on K and the dtypes only, never on M, N or threads.
struct MatmulParams {
  const float* x;  // [M, K], row stride ldx
  int64_t ldx;
  const void* w;  // [N, K] as written by KernelSet::pack_weight of the same kernel set
  DType w_dtype;  // kF32, kBF16, kF16 or a block type (K is whole blocks)
  Compute compute;
  const float* bias;  // [N] or null
  float* y;           // [M, N], row stride ldy; must not overlap x
  int64_t ldy;
  int64_t M, N, K;  // any M >= 0, N >= 1, K >= 1
};

// Rows [N, K] of a checkpoint -> the backend's own layout.
struct PackWeightParams {
  const void* src;  // [N, K] row-major, contiguous, `dtype`; alignment of one element is enough (2 bytes for blocks)
  DType dtype;      // kF32, kBF16, kF16 or a block type
  int64_t N, K;
  void* dst;                   // packed_weight_bytes(dtype, N, K) bytes, 64-byte aligned
  bool* not_finite = nullptr;  // becomes true if a value is infinite or NaN (a block: a scale); null: do not tell
};

// The gradients of a matmul's weight and bias from the rows x and the gradient dy of its output:
//   dw[n][k] += Σ_t dy[t][n]·x[t][k],  db[n] += Σ_t dy[t][n]
// t ascending, each sum starting from the stored value: rows in two calls or in one give the same bits.
// (The gradient of x is a matmul with the transposed weight.)
template <class Real>
struct MatmulGradParamsOf {
  const Real* dy;  // [T, N], row stride lddy
  int64_t lddy;
  const Real* x;  // [T, K], row stride ldx
  int64_t ldx;
  Real* dw;  // [N, K] contiguous, or null
  Real* db;  // [N] or null
  int64_t T, N, K;
};
using MatmulGradParams = MatmulGradParamsOf<float>;

}  // namespace krait
