// Definition of silu_gate and its gradient (add and embed need none), and the oracle of their tests (at double).
#pragma once
#include "krait/kernels/elementwise.h"
#include "krait/kernels/reference/math.h"

namespace krait::reference {

// Element d of row t. p.out is not used.
template <class T, class Real>
T silu_gate_at(const SiluGateParamsOf<Real>& p, int64_t t, int64_t d) {
  return T(p.a[t * p.lda + d]) * silu(T(p.gate[t * p.ldg + d]));
}

template <class Real>
void silu_gate_grad_at(const SiluGateGradParamsOf<Real>& p, int64_t t, int64_t d) {
  const Real a = p.f.a[t * p.f.lda + d], gate = p.f.gate[t * p.f.ldg + d], dout = p.dout[t * p.lddout + d];
  p.da[t * p.ldda + d] += dout * silu(gate);
  p.dgate[t * p.lddg + d] += dout * a * silu_derivative(gate);
}

}  // namespace krait::reference
