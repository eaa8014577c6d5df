// Definition of norm and gated_norm, and the oracle of their tests (at double).
#pragma once
#include "krait/kernels/norm.h"
#include "krait/kernels/reference/math.h"

namespace krait::reference {

// Row t of norm: r [D] becomes residual + x (or x), y [D] the normalised row. r may be the row of p.residual, or y;
// both may be the row of p.x. p.y is not used.
template <class T>
void norm_row(const NormParams& p, int64_t t, T* r, T* y) {
  const float* x = p.x + t * p.ldx;
  T mean = 0, squares = 0;
  for (int64_t d = 0; d < p.D; ++d) {
    r[d] = p.residual != nullptr ? T(p.residual[t * p.D + d]) + T(x[d]) : T(x[d]);
    if (p.kind == NormKind::kLayer) mean += r[d];
  }
  mean /= T(p.D);
  for (int64_t d = 0; d < p.D; ++d) squares += (r[d] - mean) * (r[d] - mean);
  const T scale = rsqrt(squares / T(p.D) + T(p.eps));
  for (int64_t d = 0; d < p.D; ++d) {
    T v = (r[d] - mean) * scale;
    if (p.w != nullptr) v *= T(p.w[d]);
    if (p.b != nullptr && p.kind == NormKind::kLayer) v += T(p.b[d]);
    y[d] = v;
  }
}

// Row t of gated_norm. out [D] may be the row of p.y; p.out is not used.
template <class T>
void gated_norm_row(const GatedNormParams& p, int64_t t, T* out) {
  const float* y = p.y + t * p.ldy;
  const float* z = p.z + t * p.ldz;
  const int64_t size = p.D / p.G;
  for (int64_t first = 0; first < p.D; first += size) {
    T squares = 0;
    for (int64_t d = first; d < first + size; ++d) {
      out[d] = p.norm_before_gate ? T(y[d]) : T(y[d]) * silu(T(z[d]));
      squares += out[d] * out[d];
    }
    const T scale = rsqrt(squares / T(size) + T(p.eps));
    for (int64_t d = first; d < first + size; ++d) {
      out[d] *= scale * T(p.w[d]);
      if (p.norm_before_gate) out[d] *= silu(T(z[d]));
    }
  }
}

}  // namespace krait::reference
