// Portable gradients of the state space dual scan: the reference at float.
#include "krait/kernels/reference/ssd_scan_grad.h"

#include "krait/backends/cpu/scalar/ops.h"

namespace krait::scalar {

void ssd_scan_grad(const Exec& exec, const SsdScanGradParams& p) {
  std::vector<reference::SsdScanSums<float>> sums(static_cast<size_t>(p.f.spans.n_seqs),
                                                  reference::SsdScanSums<float>(p.f.H, p.f.P));
  exec.pool->parallel_for(p.f.spans.n_seqs * p.f.G, [&](int64_t task) {
    const int64_t s = task / p.f.G;
    reference::ssd_scan_grad_group(p, s, task % p.f.G, sums[static_cast<size_t>(s)]);
  });
  for (const auto& of_sequence : sums) of_sequence.add_to(p);
}

}  // namespace krait::scalar
