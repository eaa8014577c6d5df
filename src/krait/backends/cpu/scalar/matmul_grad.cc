// Portable gradients of a matmul's weight and bias: the reference at float.
#include "krait/backends/cpu/scalar/ops.h"
#include "krait/kernels/reference/matmul.h"

namespace krait::scalar {

void matmul_grad(const Exec& exec, const MatmulGradParams& p) {
  exec.pool->parallel_for(p.N, [&](int64_t n) {
    if (p.db != nullptr) p.db[n] = reference::matmul_grad_bias(p, n);
    if (p.dw == nullptr) return;
    for (int64_t k = 0; k < p.K; ++k) p.dw[n * p.K + k] = reference::matmul_grad_element(p, n, k);
  });
}

}  // namespace krait::scalar
