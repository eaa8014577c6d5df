// Portable state space dual scan: the reference at float.
#include "krait/kernels/reference/ssd_scan.h"

#include <vector>

#include "krait/backends/cpu/scalar/ops.h"

namespace krait::scalar {

void ssd_scan(const Exec& exec, const SsdScanParams& p) {
  const int64_t channels = p.H * p.P;
  exec.pool->parallel_for(p.spans.n_seqs * channels, [&](int64_t task) {
    const int64_t s = task / channels, e = task % channels, h = e / p.P, c = e % p.P;
    if (p.spans.offset[s] == p.spans.offset[s + 1]) return;
    float* state = p.state + p.spans.slot[s] * p.state_stride + h * p.N * p.P + c;
    std::vector<float> S(static_cast<size_t>(p.N));
    for (int64_t n = 0; n < p.N; ++n) S[static_cast<size_t>(n)] = state[n * p.P];
    reference::ssd_scan_channel(p, s, h, c, S.data(), [&](int64_t t, float y) { p.y[t * p.ldy + e] = y; });
    for (int64_t n = 0; n < p.N; ++n) state[n * p.P] = S[static_cast<size_t>(n)];
  });
}

}  // namespace krait::scalar
