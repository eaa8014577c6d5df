// Portable gradients of the selective scan: the reference at float.
#include "krait/kernels/reference/mamba1_scan_grad.h"

#include "krait/backends/cpu/scalar/ops.h"

namespace krait::scalar {

void mamba1_scan_grad(const Exec& exec, const Mamba1ScanGradParams& p) {
  std::vector<reference::Mamba1ScanSums<float>> sums(static_cast<size_t>(p.f.spans.n_seqs),
                                                     reference::Mamba1ScanSums<float>(p.f.E, p.f.N));
  exec.pool->parallel_for(p.f.spans.n_seqs,
                          [&](int64_t s) { reference::mamba1_scan_grad_sequence(p, s, sums[static_cast<size_t>(s)]); });
  for (const auto& of_sequence : sums) of_sequence.add_to(p);
}

}  // namespace krait::scalar
