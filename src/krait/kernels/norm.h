// RMSNorm and LayerNorm over the last dimension, with an optional residual add before; gated RMSNorm.
#pragma once
#include <cstdint>

namespace krait {

enum class NormKind : uint8_t { kRms, kLayer };

// r = residual + x (written back to residual) if residual is given, else r = x;
// y = kRms:   r · rsqrt(mean(r²) + eps) · w
//     kLayer: (r − mean) · rsqrt(var + eps) · w + b               (spec/mamba.md §1.3, §6.1)
struct NormParams {
  NormKind kind;
  const float* x;  // [T, D], row stride ldx
  int64_t ldx;
  float* residual;  // [T, D] contiguous, updated in place; or null. May be written before y is.
  const float* w;   // [D] or null (= 1)
  const float* b;   // [D] or null (= 0); kLayer only
  float eps;
  float* y;  // [T, D], row stride ldy; may be x
  int64_t ldy;
  int64_t T, D;
};

// Per row, in groups of D / G channels, RMS within the group (spec/mamba.md §6.2, §6.3):
//   gate first (norm_before_gate = false): u = y·silu(z); out = u · rsqrt(mean_group(u²) + eps) · w
//   norm first (norm_before_gate = true):  out = y · rsqrt(mean_group(y²) + eps) · w · silu(z)
struct GatedNormParams {
  const float* y;  // [T, D], row stride ldy
  int64_t ldy;
  const float* z;  // [T, D], row stride ldz
  int64_t ldz;
  const float* w;  // [D]
  float eps;
  bool norm_before_gate;
  float* out;  // [T, D], row stride ldo; may be y
  int64_t ldo;
  int64_t T, D, G;
};

}  // namespace krait
