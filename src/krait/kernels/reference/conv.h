// Definition of causal_conv, and the oracle of its tests (at double).
#pragma once
#include "krait/kernels/conv.h"
#include "krait/kernels/reference/math.h"

namespace krait::reference {

// Input of sequence s, channel c at time t >= −(W−1) of this call: before 0 it comes from the state.
inline float conv_input(const CausalConvParams& p, int64_t s, int64_t t, int64_t c) {
  if (t >= 0) return p.x[(p.spans.offset[s] + t) * p.ldx + c];
  return p.state[p.spans.slot[s] * p.state_stride + (t + p.W - 1) * p.C + c];
}

// Output of sequence s, channel c at time t, from the state before the call.
template <class T>
T causal_conv_at(const CausalConvParams& p, int64_t s, int64_t t, int64_t c) {
  T sum = p.b != nullptr ? T(p.b[c]) : T(0);
  for (int64_t k = 0; k < p.W; ++k) sum += T(p.w[k * p.C + c]) * T(conv_input(p, s, t - (p.W - 1) + k, c));
  return p.silu ? silu(sum) : sum;
}

// Replaces the state of sequence s, channel c by the last W−1 inputs.
inline void update_conv_state(const CausalConvParams& p, int64_t s, int64_t c) {
  const int64_t length = p.spans.offset[s + 1] - p.spans.offset[s];
  float* state = p.state + p.spans.slot[s] * p.state_stride + c;
  for (int64_t i = 0; i < p.W - 1; ++i) state[i * p.C] = conv_input(p, s, length - (p.W - 1) + i, c);
}

}  // namespace krait::reference
