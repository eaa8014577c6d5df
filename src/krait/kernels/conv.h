// Causal depthwise convolution with carried state (spec/mamba.md §5).
#pragma once
#include <cstdint>

#include "krait/kernels/exec.h"

namespace krait {

// y[t][c] = act( b[c] + Σ_{k<W} w[k][c] · x[t − (W−1) + k][c] ), summed with k ascending, starting from b;
// x at negative time comes from the state. Tap W−1 multiplies the newest input. The state holds the last W−1 inputs,
// oldest first, and is updated in place (for sequences shorter than W−1 the old columns shift).
template <class Real>
struct CausalConvParamsOf {
  SpanView spans;
  const Real* x;  // [T, C], row stride ldx
  int64_t ldx;
  const Real* w;  // [W, C] contiguous (transposed from the checkpoint's [C, 1, W])
  const Real* b;  // [C] or null
  bool silu;      // act = silu, else identity
  Real* y;        // [T, C], row stride ldy; must not overlap x
  int64_t ldy;
  Real* state;  // [slots, W−1, C], slot stride state_stride (elements)
  int64_t state_stride;
  int64_t C, W;  // W >= 1
};
using CausalConvParams = CausalConvParamsOf<float>;

// Gradients of causal_conv (spec/mamba.md §5). dx, dw and db are added to; dstate is replaced. dw and db: the sum over
// a sequence, time ascending, is added to what is stored, sequences ascending.
template <class Real>
struct CausalConvGradParamsOf {
  CausalConvParamsOf<Real> f;  // as in the forward call; y and state are not used
  const Real* before;          // [n_seqs, W−1, C] contiguous: each sequence's state before the forward call
  const Real* dy;              // [T, C], row stride lddy
  int64_t lddy;
  Real* dx;  // [T, C], row stride lddx
  int64_t lddx;
  Real* dw;      // [W, C] or null
  Real* db;      // [C] or null
  Real* dstate;  // [slots, W−1, C], slot stride dstate_stride; in: of the state after, out: of the state before
  int64_t dstate_stride;
};
using CausalConvGradParams = CausalConvGradParamsOf<float>;

}  // namespace krait
