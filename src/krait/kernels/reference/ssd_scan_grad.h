// Definition of ssd_scan_grad: the recurrence walked back, and the oracle of its tests (at double).
#pragma once
#include <vector>

#include "krait/kernels/reference/math.h"
#include "krait/kernels/reference/ssd_scan.h"
#include "krait/kernels/ssd_scan.h"

namespace krait::reference {

// Gradients of A [H], D [H·P] (by channel also where a head has one D) and dt_bias [H] that come from one sequence.
template <class T>
struct SsdScanSums {
  SsdScanSums(int64_t H, int64_t P)
      : dA(static_cast<size_t>(H)), dD(static_cast<size_t>(H * P)), ddt_bias(dA), per_head(P) {}
  void add_to(const SsdScanGradParamsOf<T>& p) const {
    for (size_t h = 0; h < dA.size() && p.dA != nullptr; ++h) p.dA[h] += dA[h];
    for (size_t h = 0; h < dA.size() && p.ddt_bias != nullptr; ++h) p.ddt_bias[h] += ddt_bias[h];
    if (p.dD == nullptr) return;
    const int64_t channels = p.f.D_per_channel ? 1 : per_head;  // of one D
    for (size_t i = 0; i < dD.size(); i += static_cast<size_t>(channels)) {
      T sum = 0;
      for (int64_t c = 0; c < channels; ++c) sum += dD[i + static_cast<size_t>(c)];
      p.dD[static_cast<int64_t>(i) / channels] += sum;
    }
  }
  std::vector<T> dA, dD, ddt_bias;
  int64_t per_head;
};

// Channel c of head h of sequence s, L tokens. S [L + 1, N]: scratch for this channel's states before and after each
// token. Adds this channel's share to ddt [L] and da [L], the gradients of dt·x·B's dt and of dt·A.
template <class T>
void ssd_scan_grad_channel(const SsdScanGradParamsOf<T>& p, int64_t s, int64_t h, int64_t c, T* S, T* ddt, T* da,
                           SsdScanSums<T>& sums) {
  using std::exp;
  const SsdScanParamsOf<T>& f = p.f;
  const int64_t P = f.P, N = f.N, e = h * P + c, first = f.spans.offset[s], end = f.spans.offset[s + 1];
  const int64_t columns = h / (f.H / f.G) * N;  // of B and C
  const T D = f.D == nullptr ? T(0) : f.D[f.D_per_channel ? e : h];
  const T* initial = p.before + (s * f.H + h) * N * P + c;
  for (int64_t n = 0; n < N; ++n) S[n] = initial[n * P];
  for (int64_t t = first; t < end; ++t) {
    const T dt = ssd_dt<T>(f, t, h), decay = exp(dt * f.A[h]), input = dt * f.x[t * f.ldx + e];
    for (int64_t n = 0; n < N; ++n) {
      T* at = S + (t - first) * N + n;
      at[N] = decay * at[0] + input * f.B[t * f.ldb + columns + n];
    }
  }

  T* g = p.dstate + f.spans.slot[s] * p.dstate_stride + h * N * P + c;  // [N], stride P
  for (int64_t t = end - 1; t >= first; --t) {
    const T dt = ssd_dt<T>(f, t, h), decay = exp(dt * f.A[h]), x = f.x[t * f.ldx + e], dy = p.dy[t * p.lddy + e];
    const T *before = S + (t - first) * N, *after = before + N;
    T dinput = 0;  // of dt·x
    for (int64_t n = 0; n < N; ++n) {
      g[n * P] += f.C[t * f.ldc + columns + n] * dy;
      p.dC[t * p.lddC + columns + n] += dy * after[n];
      p.dB[t * p.lddB + columns + n] += g[n * P] * (dt * x);
      dinput += g[n * P] * f.B[t * f.ldb + columns + n];
      g[n * P] *= decay;
      da[t - first] += g[n * P] * before[n];
    }
    ddt[t - first] += x * dinput;
    p.dx[t * p.lddx + e] += dt * dinput + D * dy;
    sums.dD[static_cast<size_t>(e)] += dy * x;
  }
}

// Group k of sequence s: its heads and their channels in order; what the parameters get goes to `sums`.
template <class T>
void ssd_scan_grad_group(const SsdScanGradParamsOf<T>& p, int64_t s, int64_t k, SsdScanSums<T>& sums) {
  const SsdScanParamsOf<T>& f = p.f;
  const int64_t first = f.spans.offset[s], L = f.spans.offset[s + 1] - first, heads = f.H / f.G;
  std::vector<T> S(static_cast<size_t>((L + 1) * f.N)), ddt, da;
  for (int64_t h = k * heads; h < (k + 1) * heads; ++h) {
    ddt.assign(static_cast<size_t>(L), T(0));
    da = ddt;
    for (int64_t c = 0; c < f.P; ++c) ssd_scan_grad_channel(p, s, h, c, S.data(), ddt.data(), da.data(), sums);
    for (int64_t t = L; t-- > 0;) {
      const auto i = static_cast<size_t>(t);
      const T dt = ssd_dt<T>(f, first + t, h);
      const T raw = f.dt[(first + t) * f.lddt + h] + (f.dt_bias != nullptr ? f.dt_bias[h] : T(0));
      const bool inside = dt > T(f.dt_min) && dt < T(f.dt_max);  // a limit that holds dt leaves no gradient
      const T draw = inside ? (ddt[i] + f.A[h] * da[i]) * sigmoid(raw) : T(0);
      p.ddt[(first + t) * p.ldddt + h] += draw;
      sums.dA[static_cast<size_t>(h)] += dt * da[i];
      sums.ddt_bias[static_cast<size_t>(h)] += draw;
    }
  }
}

}  // namespace krait::reference
