// Definition of distill, and the oracle of its tests (at double).
#pragma once
#include <algorithm>

#include "krait/kernels/distill.h"
#include "krait/kernels/reference/math.h"

namespace krait::reference {

// Row t. The largest logit is subtracted first, so that no exponential overflows.
template <class Real>
void distill_row(const DistillParamsOf<Real>& p, int64_t t) {
  using std::exp, std::log, std::real;
  const Real* x = p.logits + t * p.ldl;
  Real* q = p.teacher + t * p.ldt;
  const float weight = p.weight != nullptr ? p.weight[t] : 1.0f;
  p.kl[t] = Real(0);
  if (p.target[t] < 0 || weight == 0) {
    if (p.grad) std::fill_n(q, p.V, Real(0));
    return;
  }
  const Real inverse = Real(1) / Real(p.temperature);
  Real most_x = x[0], most_q = q[0], sum_x = 0, sum_q = 0, apart = 0;
  for (int64_t v = 1; v < p.V; ++v) {
    if (real(x[v]) > real(most_x)) most_x = x[v];
    if (real(q[v]) > real(most_q)) most_q = q[v];
  }
  for (int64_t v = 0; v < p.V; ++v) {
    const Real of_x = (x[v] - most_x) * inverse, of_q = (q[v] - most_q) * inverse, e = exp(of_q);
    sum_x += exp(of_x);
    sum_q += e;
    apart += e * (of_q - of_x);
  }
  p.kl[t] = apart / sum_q + (log(sum_x) - log(sum_q));
  if (!p.grad) return;
  const Real slope = Real(weight) * Real(p.scale) * inverse;
  const Real by_x = slope / sum_x, by_q = slope / sum_q;
  for (int64_t v = 0; v < p.V; ++v) {
    q[v] = exp((x[v] - most_x) * inverse) * by_x - exp((q[v] - most_q) * inverse) * by_q;
  }
}

}  // namespace krait::reference
