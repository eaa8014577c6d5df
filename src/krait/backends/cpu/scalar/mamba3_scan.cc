// Portable Mamba-3 scan: the reference at float.
#include "krait/kernels/reference/mamba3_scan.h"

#include "krait/backends/cpu/scalar/ops.h"

namespace krait::scalar {

void mamba3_scan(const Exec& exec, const Mamba3ScanParams& p) {
  exec.pool->parallel_for(p.spans.n_seqs * p.H, [&](int64_t task) {
    const int64_t s = task / p.H, h = task % p.H;
    const int64_t t0 = p.spans.offset[s], t1 = p.spans.offset[s + 1], slot = p.spans.slot[s];
    const reference::Mamba3HeadState<float> state{
        p.phase + slot * p.phase_stride + h * p.F, p.S + slot * p.S_stride + h * p.N * p.P,
        p.k + slot * p.k_stride + h * p.N, p.H * p.N, p.x_prev + slot * p.x_prev_stride + h * p.P};
    reference::mamba3_head<float>(p, t0, t1, h, state, p.out + t0 * p.ldo + h * p.P, p.ldo);
  });
}

}  // namespace krait::scalar
