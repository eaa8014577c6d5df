// Portable gradients of the norms: the reference at float, a block of rows at a time.
#include <algorithm>

#include "krait/backends/cpu/scalar/ops.h"
#include "krait/backends/cpu/workspace.h"
#include "krait/kernels/reference/norm.h"

namespace krait::scalar {
namespace {

constexpr int64_t kBlock = 64;

// row(t, terms [D]) for all rows; sum[d] += its terms, rows ascending. sum may be null.
template <class F>
void rows_then_sum(const Exec& exec, int64_t T, int64_t D, float* sum, F row) {
  auto* terms = static_cast<float*>(call_workspace(static_cast<size_t>(kBlock * D) * sizeof(float)));
  for (int64_t t0 = 0; t0 < T; t0 += kBlock) {
    const int64_t n = std::min(kBlock, T - t0);
    exec.pool->parallel_for(n, [&](int64_t i) { row(t0 + i, terms + i * D); });
    if (sum == nullptr) continue;
    exec.pool->parallel_for(D, [&](int64_t d) {
      for (int64_t i = 0; i < n; ++i) sum[d] += terms[i * D + d];
    });
  }
}

}  // namespace

void norm_grad(const Exec& exec, const NormGradParams& p) {
  rows_then_sum(exec, p.T, p.D, p.dw, [&](int64_t t, float* terms) { reference::norm_grad_row(p, t, terms); });
  if (p.db == nullptr) return;
  exec.pool->parallel_for(p.D, [&](int64_t d) {
    for (int64_t t = 0; t < p.T; ++t) p.db[d] += p.dy[t * p.lddy + d];
  });
}

void gated_norm_grad(const Exec& exec, const GatedNormGradParams& p) {
  rows_then_sum(exec, p.f.T, p.f.D, p.dw,
                [&](int64_t t, float* terms) { reference::gated_norm_grad_row(p, t, terms); });
}

}  // namespace krait::scalar
