// Portable norms: the reference at float.
#include "krait/kernels/reference/norm.h"

#include "krait/backends/cpu/scalar/ops.h"

namespace krait::scalar {

void norm(const Exec& exec, const NormParams& p) {
  exec.pool->parallel_for(p.T, [&](int64_t t) {
    float* y = p.y + t * p.ldy;
    reference::norm_row(p, t, p.residual != nullptr ? p.residual + t * p.D : y, y);
  });
}

void gated_norm(const Exec& exec, const GatedNormParams& p) {
  exec.pool->parallel_for(p.T, [&](int64_t t) { reference::gated_norm_row(p, t, p.out + t * p.ldo); });
}

}  // namespace krait::scalar
