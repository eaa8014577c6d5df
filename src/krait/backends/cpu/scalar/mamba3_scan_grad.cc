// Portable gradients of the Mamba-3 scan: the reference at float, sequence after sequence, heads in parallel.
#include "krait/kernels/reference/mamba3_scan_grad.h"

#include "krait/backends/cpu/scalar/ops.h"

namespace krait::scalar {

void mamba3_scan_grad(const Exec& exec, const Mamba3ScanGradParams& p) {
  const auto parallel = [&](int64_t n, auto body) { exec.pool->parallel_for(n, body); };
  for (int64_t s = 0; s < p.f.spans.n_seqs; ++s) {
    reference::mamba3_sequence_grad(p, s, p.phase_before + s * p.f.H * p.f.F, parallel);
  }
}

}  // namespace krait::scalar
