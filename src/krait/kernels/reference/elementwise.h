// Definition of silu_gate (add and embed need none), and the oracle of its tests (at double).
#pragma once
#include "krait/kernels/elementwise.h"
#include "krait/kernels/reference/math.h"

namespace krait::reference {

// Element d of row t. p.out is not used.
template <class T>
T silu_gate_at(const SiluGateParams& p, int64_t t, int64_t d) {
  return T(p.a[t * p.lda + d]) * silu(T(p.gate[t * p.ldg + d]));
}

}  // namespace krait::reference
