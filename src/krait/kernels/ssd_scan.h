// State space dual scan of Mamba-2: a scalar decay a head (spec/mamba.md §3.3).
#pragma once
#include <cstdint>

#include "krait/kernels/exec.h"

namespace krait {

// dt  = clamp(softplus(dt_raw + dt_bias), dt_min, dt_max)                        per head
// S_t[n,p] = exp(dt_t·A[h])·S_{t−1}[n,p] + (dt_t·x_t[p])·B_t[g(h)][n],           g(h) = h div (H/G)
// y_t[p]   = Σ_n S_t[n,p]·C_t[g(h)][n] + D·x_t[p]
// n is summed in ascending order. All arithmetic and the state are f32.
struct SsdScanParams {
  SpanView spans;
  const float* x;  // [T, H·P], row stride ldx
  int64_t ldx;
  const float* dt;  // [T, H] before bias and softplus, row stride lddt
  int64_t lddt;
  const float* B;  // [T, G·N], row stride ldb
  int64_t ldb;
  const float* C;  // [T, G·N], row stride ldc
  int64_t ldc;
  const float* A;  // [H], negative (= −exp(A_log))
  const float* D;  // [H], or [H·P] if D_per_channel; null: no skip
  bool D_per_channel;
  const float* dt_bias;  // [H] or null
  float dt_min, dt_max;  // limits of dt after softplus; 0 and +infinity: none
  float* y;              // [T, H·P], row stride ldy; may be x
  int64_t ldy;
  float* state;  // [slots, H, N, P], slot stride state_stride; read and written in place
  int64_t state_stride;
  int64_t H, P, N, G;  // G divides H
};

}  // namespace krait
