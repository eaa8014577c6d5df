// Definition of norm and gated_norm and their gradients, and the oracle of their tests (at double).
#pragma once
#include "krait/kernels/norm.h"
#include "krait/kernels/reference/math.h"

namespace krait::reference {

// Row t of norm: r [D] becomes residual + x (or x), y [D] the normalised row. r may be the row of p.residual, or y;
// both may be the row of p.x. p.y is not used.
template <class T, class Real>
void norm_row(const NormParamsOf<Real>& p, int64_t t, T* r, T* y) {
  const Real* x = p.x + t * p.ldx;
  T mean = 0, squares = 0;
  for (int64_t d = 0; d < p.D; ++d) {
    r[d] = p.residual != nullptr ? T(p.residual[t * p.D + d]) + T(x[d]) : T(x[d]);
    if (p.kind == NormKind::kLayer) mean += r[d];
  }
  mean /= T(static_cast<double>(p.D));
  for (int64_t d = 0; d < p.D; ++d) squares += (r[d] - mean) * (r[d] - mean);
  const T scale = rsqrt(squares / T(static_cast<double>(p.D)) + T(p.eps));
  for (int64_t d = 0; d < p.D; ++d) {
    T v = (r[d] - mean) * scale;
    if (p.w != nullptr) v *= T(p.w[d]);
    if (p.b != nullptr && p.kind == NormKind::kLayer) v += T(p.b[d]);
    y[d] = v;
  }
}

// Row t of gated_norm. out [D] may be the row of p.y; p.out is not used.
template <class T, class Real>
void gated_norm_row(const GatedNormParamsOf<Real>& p, int64_t t, T* out) {
  const Real* y = p.y + t * p.ldy;
  const Real* z = p.z + t * p.ldz;
  const int64_t size = p.D / p.G;
  for (int64_t first = 0; first < p.D; first += size) {
    T squares = 0;
    for (int64_t d = first; d < first + size; ++d) {
      out[d] = p.norm_before_gate ? T(y[d]) : T(y[d]) * silu(T(z[d]));
      squares += out[d] * out[d];
    }
    const T scale = rsqrt(squares / T(static_cast<double>(size)) + T(p.eps));
    for (int64_t d = first; d < first + size; ++d) {
      out[d] *= scale * T(p.w[d]);
      if (p.norm_before_gate) out[d] *= silu(T(z[d]));
    }
  }
}

// Row t of norm_grad: adds to dr; term [D] becomes what the row adds to dw (to db it adds dy).
template <class Real>
void norm_grad_row(const NormGradParamsOf<Real>& p, int64_t t, Real* term) {
  const Real* r = p.r + t * p.ldr;
  const Real* dy = p.dy + t * p.lddy;
  const bool layer = p.kind == NormKind::kLayer;
  Real mean = 0, squares = 0;
  for (int64_t d = 0; d < p.D && layer; ++d) mean += r[d];
  mean /= Real(p.D);
  for (int64_t d = 0; d < p.D; ++d) squares += (r[d] - mean) * (r[d] - mean);
  const Real scale = rsqrt(squares / Real(p.D) + Real(p.eps));
  const auto dv = [&](int64_t d) { return p.w != nullptr ? dy[d] * p.w[d] : dy[d]; };  // of the normalised row v
  Real mean_dv = 0, mean_dv_v = 0;
  for (int64_t d = 0; d < p.D; ++d) {
    const Real v = (r[d] - mean) * scale;
    term[d] = dy[d] * v;
    if (layer) mean_dv += dv(d);
    mean_dv_v += dv(d) * v;
  }
  mean_dv /= Real(p.D);
  mean_dv_v /= Real(p.D);
  for (int64_t d = 0; d < p.D; ++d) {
    p.dr[t * p.lddr + d] += scale * (dv(d) - mean_dv - (r[d] - mean) * scale * mean_dv_v);
  }
}

// Row t of gated_norm_grad: adds to dy and dz; term [D] becomes what the row adds to dw.
template <class Real>
void gated_norm_grad_row(const GatedNormGradParamsOf<Real>& p, int64_t t, Real* term) {
  const GatedNormParamsOf<Real>& f = p.f;
  const Real* y = f.y + t * f.ldy;
  const Real* z = f.z + t * f.ldz;
  const Real* dout = p.dout + t * p.lddout;
  const int64_t size = f.D / f.G;
  const auto u = [&](int64_t d) { return f.norm_before_gate ? y[d] : y[d] * silu(z[d]); };  // what is normalised
  for (int64_t first = 0; first < f.D; first += size) {
    Real squares = 0, sum = 0;
    for (int64_t d = first; d < first + size; ++d) squares += u(d) * u(d);
    const Real scale = rsqrt(squares / Real(size) + Real(f.eps));
    for (int64_t d = first; d < first + size; ++d) {
      const Real dv = f.norm_before_gate ? dout[d] * silu(z[d]) : dout[d];  // of v = u·scale·w
      term[d] = dv * u(d) * scale;
      sum += term[d] * f.w[d];
    }
    const Real mean = sum / Real(size);
    for (int64_t d = first; d < first + size; ++d) {
      const Real v = u(d) * scale;
      Real* dy = p.dy + t * p.lddy + d;
      Real* dz = p.dz + t * p.lddz + d;
      if (f.norm_before_gate) {
        *dy += scale * (dout[d] * silu(z[d]) * f.w[d] - v * mean);
        *dz += dout[d] * v * f.w[d] * silu_derivative(z[d]);
      } else {
        const Real du = scale * (dout[d] * f.w[d] - v * mean);
        *dy += du * silu(z[d]);
        *dz += du * y[d] * silu_derivative(z[d]);
      }
    }
  }
}

}  // namespace krait::reference
