// Gate, residual add and embedding lookup.
#include <string.h>

#include "krait/backends/cpu/block_rows.h"
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/tasks.h"
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {
namespace {

// D 16-bit numbers widened by `load16`; the tail by way of a buffer, for want of masked 16-bit loads in AVX2.
template <class Load16>
KRAIT_INLINE void widen(const uint16_t* row, float* y, int64_t D, Load16 load16) {
  for_vectors(D, [&](int64_t d, auto lanes) {
    uint16_t tail[kLanes] = {};
    const uint16_t* from = row + d;
    if (D - d < kLanes) {
      memcpy(tail, from, static_cast<size_t>(D - d) * 2);
      from = tail;
    }
    store(y + d, load16(from), lanes);
  });
}

}  // namespace

void silu_gate(const Exec& exec, const SiluGateParams& p) {
  parallel_items(exec, p.T, p.D / kLanes * 30, [&](int64_t t) {
    const float* a = p.a + t * p.lda;
    const float* gate = p.gate + t * p.ldg;
    float* out = p.out + t * p.ldo;
    for_vectors(p.D, [&](int64_t d, auto lanes) {
      store(out + d, mul(load(a + d, lanes), silu(load(gate + d, lanes))), lanes);
    });
  });
}

void add(const Exec& exec, const AddParams& p) {
  parallel_items(exec, p.T, p.D / kLanes * 4, [&](int64_t t) {
    const float* x = p.x + t * p.ldx;
    float* y = p.y + t * p.ldy;
    for_vectors(p.D, [&](int64_t d, auto lanes) { store(y + d, add(load(y + d, lanes), load(x + d, lanes)), lanes); });
  });
}

void embed(const Exec& exec, const EmbedParams& p) {
  const int64_t row_bytes = bytes_of(p.dtype, p.D);
  parallel_items(exec, p.T, p.D / kLanes * 4, [&](int64_t t) {
    const char* row = static_cast<const char*>(p.table) + p.ids[t] * row_bytes;
    float* y = p.y + t * p.D;
    if (is_block_type(p.dtype)) {
      decode_block_row(p.dtype, row, p.D, y);
    } else if (p.dtype == DType::kF32) {
      memcpy(y, row, static_cast<size_t>(row_bytes));
    } else if (p.dtype == DType::kBF16) {
      widen(reinterpret_cast<const uint16_t*>(row), y, p.D, load_bf16);
    } else {
      widen(reinterpret_cast<const uint16_t*>(row), y, p.D, load_f16);
    }
  });
}

}  // namespace krait::KRAIT_ISA
