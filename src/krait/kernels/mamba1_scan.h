// Selective scan of Mamba-1 (spec/mamba.md §2.3).
#pragma once
#include <cstdint>

#include "krait/kernels/exec.h"

namespace krait {

// dt = softplus(dt_raw + dt_bias) if softplus, else dt_raw + dt_bias;  softplus(u) = log(1 + e^u)
// h_t[n,e] = exp(dt_t[e]·A[n,e]) · h_{t−1}[n,e] + dt_t[e]·B_t[n]·x_t[e]
// y_t[e]   = Σ_n C_t[n]·h_t[n,e] + D[e]·x_t[e];   then y·silu(z) if z is given
// n is summed in ascending order. All arithmetic and the state are f32.
template <class Real>
struct Mamba1ScanParamsOf {
  SpanView spans;
  const Real* x;  // [T, E], row stride ldx
  int64_t ldx;
  const Real* dt;  // [T, E] before bias and softplus, row stride lddt
  int64_t lddt;
  const Real* B;  // [T, N], row stride ldb
  int64_t ldb;
  const Real* C;  // [T, N], row stride ldc
  int64_t ldc;
  const Real* z;  // [T, E], row stride ldz; or null
  int64_t ldz;
  const Real* A;        // [N, E] contiguous, negative (= −exp(A_log), transposed)
  const Real* D;        // [E] or null
  const Real* dt_bias;  // [E] or null
  bool softplus;
  Real* y;  // [T, E], row stride ldy; may be x
  int64_t ldy;
  Real* state;  // [slots, N, E], slot stride state_stride; read and written in place
  int64_t state_stride;
  int64_t E, N;
};
using Mamba1ScanParams = Mamba1ScanParamsOf<float>;

// Gradients of mamba1_scan (spec/mamba.md §2.4). All are added to but dstate, which is replaced.
template <class Real>
struct Mamba1ScanGradParamsOf {
  Mamba1ScanParamsOf<Real> f;  // as in the forward call; y and state are not used
  const Real* before;          // [n_seqs, N, E] contiguous: each sequence's state before the forward call
  const Real* dy;              // [T, E], row stride lddy
  int64_t lddy;
  Real* dx;  // [T, E], row stride lddx
  int64_t lddx;
  Real* ddt;  // [T, E], row stride ldddt
  int64_t ldddt;
  Real* dB;  // [T, N], row stride lddB
  int64_t lddB;
  Real* dC;  // [T, N], row stride lddC
  int64_t lddC;
  Real* dz;  // [T, E], row stride lddz; or null if f.z is
  int64_t lddz;
  Real* dA;        // [N, E] or null
  Real* dD;        // [E] or null
  Real* ddt_bias;  // [E] or null
  Real* dstate;    // [slots, N, E], slot stride dstate_stride; in: of the state after, out: of the state before
  int64_t dstate_stride;
};
using Mamba1ScanGradParams = Mamba1ScanGradParamsOf<float>;

}  // namespace krait
