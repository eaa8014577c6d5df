// State space dual scan of Mamba-2: a scalar decay a head (spec/mamba.md §3.3).
#pragma once
#include <cstdint>

#include "krait/kernels/exec.h"

namespace krait {

// dt  = clamp(softplus(dt_raw + dt_bias), dt_min, dt_max)                        per head
// S_t[n,p] = exp(dt_t·A[h])·S_{t−1}[n,p] + (dt_t·x_t[p])·B_t[g(h)][n],           g(h) = h div (H/G)
// y_t[p]   = Σ_n S_t[n,p]·C_t[g(h)][n] + D·x_t[p]
// n is summed in ascending order. All arithmetic and the state are f32.
template <class Real>
struct SsdScanParamsOf {
  SpanView spans;
  const Real* x;  // [T, H·P], row stride ldx
  int64_t ldx;
  const Real* dt;  // [T, H] before bias and softplus, row stride lddt
  int64_t lddt;
  const Real* B;  // [T, G·N], row stride ldb
  int64_t ldb;
  const Real* C;  // [T, G·N], row stride ldc
  int64_t ldc;
  const Real* A;  // [H], negative (= −exp(A_log))
  const Real* D;  // [H], or [H·P] if D_per_channel; null: no skip
  bool D_per_channel;
  const Real* dt_bias;   // [H] or null
  float dt_min, dt_max;  // limits of dt after softplus; 0 and +infinity: none
  Real* y;               // [T, H·P], row stride ldy; may be x
  int64_t ldy;
  Real* state;  // [slots, H, N, P], slot stride state_stride; read and written in place
  int64_t state_stride;
  int64_t H, P, N, G;  // G divides H
};
using SsdScanParams = SsdScanParamsOf<float>;

// Gradients of ssd_scan (spec/mamba.md §3.4). All are added to but dstate, which is replaced.
template <class Real>
struct SsdScanGradParamsOf {
  SsdScanParamsOf<Real> f;  // as in the forward call; y and state are not used
  const Real* before;       // [n_seqs, H, N, P] contiguous: each sequence's state before the forward call
  const Real* dy;           // [T, H·P], row stride lddy
  int64_t lddy;
  Real* dx;  // [T, H·P], row stride lddx
  int64_t lddx;
  Real* ddt;  // [T, H], row stride ldddt
  int64_t ldddt;
  Real* dB;  // [T, G·N], row stride lddB
  int64_t lddB;
  Real* dC;  // [T, G·N], row stride lddC
  int64_t lddC;
  Real* dA;        // [H] or null
  Real* dD;        // like f.D, or null
  Real* ddt_bias;  // [H] or null
  Real* dstate;    // [slots, H, N, P], slot stride dstate_stride; in: of the state after, out: of the state before
  int64_t dstate_stride;
};
using SsdScanGradParams = SsdScanGradParamsOf<float>;

}  // namespace krait
