// Portable matmul: the reference at float, on unpacked weights.
#include "krait/kernels/reference/matmul.h"

#include <atomic>
#include <cstring>
#include <vector>

#include "krait/backends/cpu/scalar/ops.h"
#include "krait/kernels/reference/block_matmul.h"
#include "krait/kernels/reference/finite.h"

namespace krait::scalar {
namespace {

void block_matmul(const Exec& exec, const MatmulParams& p) {
  const int64_t chunks = p.K / 32;
  std::vector<reference::Quantized32> x(static_cast<size_t>(p.M * chunks));
  exec.pool->parallel_for(p.M, [&](int64_t m) {
    for (int64_t c = 0; c < chunks; ++c) {
      x[static_cast<size_t>(m * chunks + c)] = reference::quantize_32(p.x + m * p.ldx + 32 * c);
    }
  });
  const int64_t row_bytes = bytes_of(p.w_dtype, p.K);
  exec.pool->parallel_for(p.N, [&](int64_t n) {
    const char* row = static_cast<const char*>(p.w) + n * row_bytes;
    for (int64_t m = 0; m < p.M; ++m) {
      const float y = reference::block_dot(p.w_dtype, row, x.data() + m * chunks, p.K);
      p.y[m * p.ldy + n] = p.bias == nullptr ? y : y + p.bias[n];
    }
  });
}

}  // namespace

size_t packed_weight_bytes(DType dtype, int64_t N, int64_t K) { return static_cast<size_t>(bytes_of(dtype, N * K)); }

void pack_weight(const Exec& exec, const PackWeightParams& p) {
  const auto row_bytes = static_cast<size_t>(bytes_of(p.dtype, p.K));
  exec.pool->parallel_for(p.N, [&](int64_t n) {
    const size_t at = static_cast<size_t>(n) * row_bytes;
    const char* row = static_cast<const char*>(p.src) + at;
    std::memcpy(static_cast<char*>(p.dst) + at, row, row_bytes);
    if (p.not_finite != nullptr && reference::count_non_finite(p.dtype, row, p.K) > 0) {
      std::atomic_ref(*p.not_finite).store(true, std::memory_order_relaxed);
    }
  });
}

void matmul(const Exec& exec, const MatmulParams& p) {
  if (is_block_type(p.w_dtype)) return block_matmul(exec, p);
  exec.pool->parallel_for(p.N, [&](int64_t n) {
    for (int64_t m = 0; m < p.M; ++m) p.y[m * p.ldy + n] = reference::matmul_element<float>(p, m, n);
  });
}

}  // namespace krait::scalar
