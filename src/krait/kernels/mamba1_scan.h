// Selective scan of Mamba-1 (spec/mamba.md §2.3).
#pragma once
#include <cstdint>

#include "krait/kernels/exec.h"

namespace krait {

// dt = softplus(dt_raw + dt_bias) if softplus, else dt_raw + dt_bias;  softplus(u) = log(1 + e^u)
// h_t[n,e] = exp(dt_t[e]·A[n,e]) · h_{t−1}[n,e] + dt_t[e]·B_t[n]·x_t[e]
// y_t[e]   = Σ_n C_t[n]·h_t[n,e] + D[e]·x_t[e];   then y·silu(z) if z is given
// n is summed in ascending order. All arithmetic and the state are f32.
struct Mamba1ScanParams {
  SpanView spans;
  const float* x;  // [T, E], row stride ldx
  int64_t ldx;
  const float* dt;  // [T, E] before bias and softplus, row stride lddt
  int64_t lddt;
  const float* B;  // [T, N], row stride ldb
  int64_t ldb;
  const float* C;  // [T, N], row stride ldc
  int64_t ldc;
  const float* z;  // [T, E], row stride ldz; or null
  int64_t ldz;
  const float* A;        // [N, E] contiguous, negative (= −exp(A_log), transposed)
  const float* D;        // [E] or null
  const float* dt_bias;  // [E] or null
  bool softplus;
  float* y;  // [T, E], row stride ldy; may be x
  int64_t ldy;
  float* state;  // [slots, N, E], slot stride state_stride; read and written in place
  int64_t state_stride;
  int64_t E, N;
};

}  // namespace krait
