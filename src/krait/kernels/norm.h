// RMSNorm and LayerNorm over the last dimension, with an optional residual add before; gated RMSNorm.
#pragma once
#include <cstdint>

namespace krait {

enum class NormKind : uint8_t { kRms, kLayer };

// r = residual + x (written back to residual) if residual is given, else r = x;
// y = kRms:   r · rsqrt(mean(r²) + eps) · w
//     kLayer: (r − mean) · rsqrt(var + eps) · w + b               (spec/mamba.md §1.3, §6.1)
template <class Real>
struct NormParamsOf {
  NormKind kind;
  const Real* x;  // [T, D], row stride ldx
  int64_t ldx;
  Real* residual;  // [T, D] contiguous, updated in place; or null. May be written before y is.
  const Real* w;   // [D] or null (= 1)
  const Real* b;   // [D] or null (= 0); kLayer only
  float eps;
  Real* y;  // [T, D], row stride ldy; may be x
  int64_t ldy;
  int64_t T, D;
};
using NormParams = NormParamsOf<float>;

// Per row, in groups of D / G channels, RMS within the group (spec/mamba.md §6.2, §6.3):
//   gate first (norm_before_gate = false): u = y·silu(z); out = u · rsqrt(mean_group(u²) + eps) · w
//   norm first (norm_before_gate = true):  out = y · rsqrt(mean_group(y²) + eps) · w · silu(z)
template <class Real>
struct GatedNormParamsOf {
  const Real* y;  // [T, D], row stride ldy
  int64_t ldy;
  const Real* z;  // [T, D], row stride ldz
  int64_t ldz;
  const Real* w;  // [D]
  float eps;
  bool norm_before_gate;
  Real* out;  // [T, D], row stride ldo; may be y
  int64_t ldo;
  int64_t T, D, G;
};
using GatedNormParams = GatedNormParamsOf<float>;

// Gradients of norm (spec/mamba.md §6.1); each is added to. r: what was normalised. dw and db take the rows in
// ascending order, starting from the stored value: rows in two calls or in one give the same bits.
template <class Real>
struct NormGradParamsOf {
  NormKind kind;
  const Real* r;  // [T, D], row stride ldr
  int64_t ldr;
  const Real* w;  // [D] or null (= 1)
  float eps;
  const Real* dy;  // [T, D], row stride lddy
  int64_t lddy;
  Real* dr;  // [T, D], row stride lddr
  int64_t lddr;
  Real* dw;  // [D] or null
  Real* db;  // [D] or null
  int64_t T, D;
};
using NormGradParams = NormGradParamsOf<float>;

// Gradients of gated_norm (spec/mamba.md §6.2, §6.3); each is added to, dw in ascending order of rows as in norm_grad.
template <class Real>
struct GatedNormGradParamsOf {
  GatedNormParamsOf<Real> f;  // as in the forward call; out is not used
  const Real* dout;           // [T, D], row stride lddout
  int64_t lddout;
  Real* dy;  // [T, D], row stride lddy
  int64_t lddy;
  Real* dz;  // [T, D], row stride lddz
  int64_t lddz;
  Real* dw;  // [D] or null
};
using GatedNormGradParams = GatedNormGradParamsOf<float>;

}  // namespace krait
