// Portable gradient of the causal convolution: the reference at float.
#include "krait/backends/cpu/scalar/ops.h"
#include "krait/kernels/reference/conv.h"

namespace krait::scalar {

void causal_conv_grad(const Exec& exec, const CausalConvGradParams& p) {
  exec.pool->parallel_for(p.f.C, [&](int64_t c) {
    for (int64_t s = 0; s < p.f.spans.n_seqs; ++s) reference::causal_conv_grad_channel(p, s, c);
  });
}

}  // namespace krait::scalar
