// Definition of cross_entropy, and the oracle of its tests (at double).
#pragma once
#include <algorithm>

#include "krait/kernels/cross_entropy.h"
#include "krait/kernels/reference/math.h"

namespace krait::reference {

// Row t. The largest logit is subtracted first, so that no exponential overflows.
template <class Real>
void cross_entropy_row(const CrossEntropyParamsOf<Real>& p, int64_t t) {
  using std::exp, std::log;
  Real* x = p.logits + t * p.ldl;
  const int32_t target = p.target[t];
  const float weight = p.weight != nullptr ? p.weight[t] : 1.0f;
  p.nll[t] = p.lse_out[t] = Real(0);
  if (target < 0 || weight == 0) {
    if (p.grad) std::fill_n(x, p.columns, Real(0));
    return;
  }
  Real most = x[0], sum = 0;
  for (int64_t v = 1; v < p.V; ++v) {
    if (std::real(x[v]) > std::real(most)) most = x[v];
  }
  for (int64_t v = 0; v < p.V; ++v) sum += exp(x[v] - most);
  const Real log_sum = log(sum), lse = most + log_sum;
  p.lse_out[t] = lse;
  p.nll[t] = most - x[target] + log_sum;
  if (!p.grad) return;
  const Real scale = Real(weight) * Real(p.scale), softmax = scale * (Real(1) + Real(2) * Real(p.z_loss) * lse) / sum;
  for (int64_t v = 0; v < p.V; ++v) x[v] = exp(x[v] - most) * softmax;
  x[target] -= scale;
  std::fill_n(x + p.V, p.columns - p.V, Real(0));
}

}  // namespace krait::reference
