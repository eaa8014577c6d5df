// Portable matmul: the reference at float, on unpacked weights.
#include "krait/kernels/reference/matmul.h"

#include <cstring>

#include "krait/backends/cpu/scalar/ops.h"

namespace krait::scalar {

size_t packed_weight_bytes(DType dtype, int64_t N, int64_t K) { return static_cast<size_t>(N * K * size_of(dtype)); }

void pack_weight(const Exec& exec, const PackWeightParams& p) {
  const auto row_bytes = static_cast<size_t>(p.K * size_of(p.dtype));
  exec.pool->parallel_for(p.N, [&](int64_t n) {
    const size_t at = static_cast<size_t>(n) * row_bytes;
    std::memcpy(static_cast<char*>(p.dst) + at, static_cast<const char*>(p.src) + at, row_bytes);
  });
}

void matmul(const Exec& exec, const MatmulParams& p) {
  exec.pool->parallel_for(p.N, [&](int64_t n) {
    for (int64_t m = 0; m < p.M; ++m) p.y[m * p.ldy + n] = reference::matmul_element<float>(p, m, n);
  });
}

}  // namespace krait::scalar
