// Causal depthwise convolution with carried state (spec/mamba.md §5).
#pragma once
#include <cstdint>

#include "krait/kernels/exec.h"

namespace krait {

// y[t][c] = act( b[c] + Σ_{k<W} w[k][c] · x[t − (W−1) + k][c] ), summed with k ascending, starting from b;
// x at negative time comes from the state. Tap W−1 multiplies the newest input. The state holds the last W−1 inputs,
// oldest first, and is updated in place (for sequences shorter than W−1 the old columns shift).
struct CausalConvParams {
  SpanView spans;
  const float* x;  // [T, C], row stride ldx
  int64_t ldx;
  const float* w;  // [W, C] contiguous (transposed from the checkpoint's [C, 1, W])
  const float* b;  // [C] or null
  bool silu;       // act = silu, else identity
  float* y;        // [T, C], row stride ldy; must not overlap x
  int64_t ldy;
  float* state;  // [slots, W−1, C], slot stride state_stride (elements)
  int64_t state_stride;
  int64_t C, W;  // W >= 1
};

}  // namespace krait
