// Portable causal convolution: the reference at float.
#include "krait/kernels/reference/conv.h"

#include "krait/backends/cpu/scalar/ops.h"

namespace krait::scalar {

void causal_conv(const Exec& exec, const CausalConvParams& p) {
  exec.pool->parallel_for(p.spans.n_seqs * p.C, [&](int64_t task) {
    const int64_t s = task / p.C, c = task % p.C;
    const int64_t first = p.spans.offset[s], length = p.spans.offset[s + 1] - first;
    for (int64_t t = 0; t < length; ++t) p.y[(first + t) * p.ldy + c] = reference::causal_conv_at<float>(p, s, t, c);
    reference::update_conv_state(p, s, c);
  });
}

}  // namespace krait::scalar
