// Portable cross-entropy: the reference at float.
#include "krait/kernels/reference/cross_entropy.h"

#include "krait/backends/cpu/scalar/ops.h"

namespace krait::scalar {

void cross_entropy(const Exec& exec, const CrossEntropyParams& p) {
  exec.pool->parallel_for(p.T, [&](int64_t t) { reference::cross_entropy_row(p, t); });
}

}  // namespace krait::scalar
