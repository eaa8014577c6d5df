// Definition of mamba1_scan_grad: the recurrence walked back, and the oracle of its tests (at double).
#pragma once
#include <vector>

#include "krait/kernels/mamba1_scan.h"
#include "krait/kernels/reference/math.h"

namespace krait::reference {

// Gradients of A [N, E], D [E] and dt_bias [E] that come from one sequence.
template <class T>
struct Mamba1ScanSums {
  Mamba1ScanSums(int64_t E, int64_t N) : dA(static_cast<size_t>(N * E)), dD(static_cast<size_t>(E)), ddt_bias(dD) {}
  void add_to(const Mamba1ScanGradParamsOf<T>& p) const {
    for (size_t i = 0; i < dA.size() && p.dA != nullptr; ++i) p.dA[i] += dA[i];
    for (size_t i = 0; i < dD.size() && p.dD != nullptr; ++i) p.dD[i] += dD[i];
    for (size_t i = 0; i < dD.size() && p.ddt_bias != nullptr; ++i) p.ddt_bias[i] += ddt_bias[i];
  }
  std::vector<T> dA, dD, ddt_bias;
};

// Channel e of sequence s. h [L + 1, N]: scratch for this channel's states before and after each of its L tokens.
template <class T>
void mamba1_scan_grad_channel(const Mamba1ScanGradParamsOf<T>& p, int64_t s, int64_t e, T* h, Mamba1ScanSums<T>& sums) {
  using std::exp;
  const Mamba1ScanParamsOf<T>& f = p.f;
  const int64_t E = f.E, N = f.N, first = f.spans.offset[s], end = f.spans.offset[s + 1];
  const T bias = f.dt_bias != nullptr ? f.dt_bias[e] : T(0), D = f.D != nullptr ? f.D[e] : T(0);
  const auto raw = [&](int64_t t) { return f.dt[t * f.lddt + e] + bias; };
  const auto step = [&](int64_t t) { return f.softplus ? softplus(raw(t)) : raw(t); };
  for (int64_t n = 0; n < N; ++n) h[n] = p.before[(s * N + n) * E + e];
  for (int64_t t = first; t < end; ++t) {
    const T dt = step(t), x = f.x[t * f.ldx + e];
    for (int64_t n = 0; n < N; ++n) {
      T* at = h + (t - first) * N + n;
      at[N] = exp(dt * f.A[n * E + e]) * at[0] + dt * f.B[t * f.ldb + n] * x;
    }
  }

  T* g = p.dstate + f.spans.slot[s] * p.dstate_stride + e;  // [N], stride E
  for (int64_t t = end - 1; t >= first; --t) {
    const T dt = step(t), x = f.x[t * f.ldx + e];
    const T *before = h + (t - first) * N, *after = before + N;
    T dy = p.dy[t * p.lddy + e];
    if (f.z != nullptr) {
      const T z = f.z[t * f.ldz + e];
      T y = D * x;
      for (int64_t n = 0; n < N; ++n) y += f.C[t * f.ldc + n] * after[n];
      p.dz[t * p.lddz + e] += dy * y * silu_derivative(z);
      dy *= silu(z);
    }
    T dinput = 0, ddt = 0;  // of dt·x, of dt
    for (int64_t n = 0; n < N; ++n) {
      const T A = f.A[n * E + e], B = f.B[t * f.ldb + n];
      g[n * E] += f.C[t * f.ldc + n] * dy;
      p.dC[t * p.lddC + n] += dy * after[n];
      p.dB[t * p.lddB + n] += g[n * E] * (dt * x);
      dinput += g[n * E] * B;
      g[n * E] *= exp(dt * A);
      const T dexponent = g[n * E] * before[n];  // of dt·A
      ddt += A * dexponent;
      sums.dA[static_cast<size_t>(n * E + e)] += dt * dexponent;
    }
    const T draw = (ddt + x * dinput) * (f.softplus ? sigmoid(raw(t)) : T(1));
    p.dx[t * p.lddx + e] += dt * dinput + D * dy;
    p.ddt[t * p.ldddt + e] += draw;
    sums.dD[static_cast<size_t>(e)] += dy * x;
    sums.ddt_bias[static_cast<size_t>(e)] += draw;
  }
}

// All channels of sequence s, in order; what the parameters get goes to `sums`.
template <class T>
void mamba1_scan_grad_sequence(const Mamba1ScanGradParamsOf<T>& p, int64_t s, Mamba1ScanSums<T>& sums) {
  const int64_t L = p.f.spans.offset[s + 1] - p.f.spans.offset[s];
  std::vector<T> h(static_cast<size_t>((L + 1) * p.f.N));
  for (int64_t e = 0; e < p.f.E; ++e) mamba1_scan_grad_channel(p, s, e, h.data(), sums);
}

}  // namespace krait::reference
