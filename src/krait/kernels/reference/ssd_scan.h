// Definition of ssd_scan, and the oracle of its tests (at double).
#pragma once
#include "krait/kernels/reference/math.h"
#include "krait/kernels/ssd_scan.h"

namespace krait::reference {

// dt of head h at packed token t, after bias, softplus and limits.
template <class T, class Real>
T ssd_dt(const SsdScanParamsOf<Real>& p, int64_t t, int64_t h) {
  const T dt = softplus(T(p.dt[t * p.lddt + h]) + (p.dt_bias != nullptr ? T(p.dt_bias[h]) : T(0)));
  using std::real;
  if (real(dt) < p.dt_min) return T(p.dt_min);
  return real(dt) > p.dt_max ? T(p.dt_max) : dt;
}

// Channel c of head h of sequence s: S [N] is its state before and after, out(t, y) takes the output of packed token t.
// p.y and p.state are not used.
template <class T, class Real, class Out>
void ssd_scan_channel(const SsdScanParamsOf<Real>& p, int64_t s, int64_t h, int64_t c, T* S, Out out) {
  using std::exp;
  const int64_t e = h * p.P + c, g = h / (p.H / p.G);
  for (int64_t t = p.spans.offset[s]; t < p.spans.offset[s + 1]; ++t) {
    const T dt = ssd_dt<T>(p, t, h), x = T(p.x[t * p.ldx + e]);
    const T decay = exp(dt * T(p.A[h]));
    T y = 0;
    for (int64_t n = 0; n < p.N; ++n) {
      S[n] = decay * S[n] + dt * x * T(p.B[t * p.ldb + g * p.N + n]);
      y += T(p.C[t * p.ldc + g * p.N + n]) * S[n];
    }
    if (p.D != nullptr) y += T(p.D[p.D_per_channel ? e : h]) * x;
    out(t, y);
  }
}

}  // namespace krait::reference
