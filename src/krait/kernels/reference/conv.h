// Definition of causal_conv and its gradient, and the oracle of their tests (at double).
#pragma once
#include <vector>

#include "krait/kernels/conv.h"
#include "krait/kernels/reference/math.h"

namespace krait::reference {

// Input of sequence s, channel c at time t >= −(W−1) of this call: before 0 it comes from the state.
template <class Real>
Real conv_input(const CausalConvParamsOf<Real>& p, int64_t s, int64_t t, int64_t c) {
  if (t >= 0) return p.x[(p.spans.offset[s] + t) * p.ldx + c];
  return p.state[p.spans.slot[s] * p.state_stride + (t + p.W - 1) * p.C + c];
}

// Output of sequence s, channel c at time t, from the state before the call.
template <class T, class Real>
T causal_conv_at(const CausalConvParamsOf<Real>& p, int64_t s, int64_t t, int64_t c) {
  T sum = p.b != nullptr ? T(p.b[c]) : T(0);
  for (int64_t k = 0; k < p.W; ++k) sum += T(p.w[k * p.C + c]) * T(conv_input(p, s, t - (p.W - 1) + k, c));
  return p.silu ? silu(sum) : sum;
}

// Replaces the state of sequence s, channel c by the last W−1 inputs.
template <class Real>
void update_conv_state(const CausalConvParamsOf<Real>& p, int64_t s, int64_t c) {
  const int64_t length = p.spans.offset[s + 1] - p.spans.offset[s];
  Real* state = p.state + p.spans.slot[s] * p.state_stride + c;
  for (int64_t i = 0; i < p.W - 1; ++i) state[i * p.C] = conv_input(p, s, length - (p.W - 1) + i, c);
}

// Channel c of sequence s. Of a sum, earlier times come first; the final state's gradient comes last.
template <class Real>
void causal_conv_grad_channel(const CausalConvGradParamsOf<Real>& p, int64_t s, int64_t c) {
  const CausalConvParamsOf<Real>& f = p.f;
  const int64_t first = f.spans.offset[s], length = f.spans.offset[s + 1] - first, before = f.W - 1;
  const auto input = [&](int64_t t) {
    return t >= 0 ? f.x[(first + t) * f.ldx + c] : p.before[(s * before + t + before) * f.C + c];
  };
  std::vector<Real> du(static_cast<size_t>(length));  // gradient of what goes into act
  Real db = 0;
  for (int64_t t = 0; t < length; ++t) {
    Real u = f.b != nullptr ? f.b[c] : Real(0);
    for (int64_t k = 0; k < f.W; ++k) u += f.w[k * f.C + c] * input(t - before + k);
    const Real dy = p.dy[(first + t) * p.lddy + c];
    db += du[static_cast<size_t>(t)] = f.silu ? dy * silu_derivative(u) : dy;
  }
  if (p.db != nullptr) p.db[c] += db;
  for (int64_t k = 0; k < f.W && p.dw != nullptr; ++k) {
    Real dw = 0;
    for (int64_t t = 0; t < length; ++t) dw += du[static_cast<size_t>(t)] * input(t - before + k);
    p.dw[k * f.C + c] += dw;
  }
  Real* dstate = p.dstate + f.spans.slot[s] * p.dstate_stride + c;
  for (int64_t t = length - 1; t >= -before; --t) {  // latest first: dstate is read below where it is written
    Real dx = 0;
    for (int64_t k = f.W - 1; k >= 0; --k) {
      const int64_t at = t + before - k;
      if (at >= 0 && at < length) dx += f.w[k * f.C + c] * du[static_cast<size_t>(at)];
    }
    if (t >= length - before) dx += dstate[(t - length + before) * f.C];
    if (t >= 0) {
      p.dx[(first + t) * p.lddx + c] += dx;
    } else {
      dstate[(t + before) * f.C] = dx;
    }
  }
}

}  // namespace krait::reference
