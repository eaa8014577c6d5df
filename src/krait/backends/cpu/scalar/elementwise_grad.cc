// Portable gradients of the small ops.
#include "krait/backends/cpu/scalar/ops.h"
#include "krait/kernels/reference/elementwise.h"

namespace krait::scalar {

void silu_gate_grad(const Exec& exec, const SiluGateGradParams& p) {
  exec.pool->parallel_for(p.f.T, [&](int64_t t) {
    for (int64_t d = 0; d < p.f.D; ++d) reference::silu_gate_grad_at(p, t, d);
  });
}

// Several tokens may have one id: threads share the columns.
void embed_grad(const Exec& exec, const EmbedGradParams& p) {
  exec.pool->parallel_for(p.D, [&](int64_t d) {
    for (int64_t t = 0; t < p.T; ++t) p.dtable[p.ids[t] * p.D + d] += p.dy[t * p.lddy + d];
  });
}

}  // namespace krait::scalar
