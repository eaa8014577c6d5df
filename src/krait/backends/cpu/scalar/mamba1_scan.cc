// Portable selective scan: the reference at float.
#include "krait/kernels/reference/mamba1_scan.h"

#include <vector>

#include "krait/backends/cpu/scalar/ops.h"

namespace krait::scalar {

void mamba1_scan(const Exec& exec, const Mamba1ScanParams& p) {
  exec.pool->parallel_for(p.spans.n_seqs * p.E, [&](int64_t task) {
    const int64_t s = task / p.E, e = task % p.E;
    if (p.spans.offset[s] == p.spans.offset[s + 1]) return;
    float* state = p.state + p.spans.slot[s] * p.state_stride + e;
    std::vector<float> h(static_cast<size_t>(p.N));
    for (int64_t n = 0; n < p.N; ++n) h[static_cast<size_t>(n)] = state[n * p.E];
    reference::mamba1_scan_channel(p, s, e, h.data(), [&](int64_t t, float y) { p.y[t * p.ldy + e] = y; });
    for (int64_t n = 0; n < p.N; ++n) state[n * p.E] = h[static_cast<size_t>(n)];
  });
}

}  // namespace krait::scalar
