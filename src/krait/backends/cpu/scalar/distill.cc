// Portable distillation: the reference at float.
#include "krait/kernels/reference/distill.h"

#include "krait/backends/cpu/scalar/ops.h"

namespace krait::scalar {

void distill(const Exec& exec, const DistillParams& p) {
  exec.pool->parallel_for(p.T, [&](int64_t t) { reference::distill_row(p, t); });
}

}  // namespace krait::scalar
