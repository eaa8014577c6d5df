// Definition of mamba1_scan, and the oracle of its tests (at double).
#pragma once
#include "krait/kernels/mamba1_scan.h"
#include "krait/kernels/reference/math.h"

namespace krait::reference {

// Channel e of sequence s: h [N] is its state before and after, out(t, y) takes the output of packed token t.
// p.y and p.state are not used.
template <class T, class Real, class Out>
void mamba1_scan_channel(const Mamba1ScanParamsOf<Real>& p, int64_t s, int64_t e, T* h, Out out) {
  using std::exp;
  const T bias = p.dt_bias != nullptr ? T(p.dt_bias[e]) : T(0);
  for (int64_t t = p.spans.offset[s]; t < p.spans.offset[s + 1]; ++t) {
    const T x = T(p.x[t * p.ldx + e]);
    T dt = T(p.dt[t * p.lddt + e]) + bias;
    if (p.softplus) dt = softplus(dt);
    T y = 0;
    for (int64_t n = 0; n < p.N; ++n) {
      h[n] = exp(dt * T(p.A[n * p.E + e])) * h[n] + dt * T(p.B[t * p.ldb + n]) * x;
      y += T(p.C[t * p.ldc + n]) * h[n];
    }
    if (p.D != nullptr) y += T(p.D[e]) * x;
    if (p.z != nullptr) y *= silu(T(p.z[t * p.ldz + e]));
    out(t, y);
  }
}

}  // namespace krait::reference
