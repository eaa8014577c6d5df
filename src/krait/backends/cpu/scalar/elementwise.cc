// Portable small ops.
#include "krait/kernels/reference/elementwise.h"
#include "krait/backends/cpu/block_rows.h"
#include "krait/backends/cpu/scalar/ops.h"
#include "krait/kernels/reference/matmul.h"

namespace krait::scalar {

void silu_gate(const Exec& exec, const SiluGateParams& p) {
  exec.pool->parallel_for(p.T, [&](int64_t t) {
    for (int64_t d = 0; d < p.D; ++d) p.out[t * p.ldo + d] = reference::silu_gate_at<float>(p, t, d);
  });
}

void add(const Exec& exec, const AddParams& p) {
  exec.pool->parallel_for(p.T, [&](int64_t t) {
    for (int64_t d = 0; d < p.D; ++d) p.y[t * p.ldy + d] += p.x[t * p.ldx + d];
  });
}

void embed(const Exec& exec, const EmbedParams& p) {
  exec.pool->parallel_for(p.T, [&](int64_t t) {
    const int64_t row = p.ids[t] * p.D;
    float* y = p.y + t * p.D;
    if (is_block_type(p.dtype)) {
      return decode_block_row(p.dtype, static_cast<const char*>(p.table) + bytes_of(p.dtype, row), p.D, y);
    }
    for (int64_t d = 0; d < p.D; ++d) y[d] = reference::weight_at<float>(p.table, p.dtype, row + d);
  });
}

}  // namespace krait::scalar
