#include "krait/ops/dequantize.h"

#include <fmt/format.h>

#include <cstring>

#include "krait/core/error.h"
#include "krait/core/half.h"
#include "krait/kernels/reference/dequantize.h"
#include "krait/kernels/reference/finite.h"

namespace krait {
namespace {

void widen(const Tensor& t, float (*f32_of)(uint16_t), float* out) {
  const std::byte* p = t.bytes();  // files may hold halves at odd addresses
  for (int64_t i = 0; i < t.numel(); ++i) {
    uint16_t h;
    std::memcpy(&h, p + 2 * i, sizeof h);
    out[i] = f32_of(h);
  }
}

}  // namespace

Tensor dequantize(const Tensor& t) {
  if (t.dtype() == DType::kF32) return t.clone();
  const Tensor src = t.is_contiguous() ? t : t.clone();
  Tensor out = Tensor::empty(t.shape());
  if (t.dtype() == DType::kBF16) {
    widen(src, bf16_to_f32, out.f32());
  } else if (t.dtype() == DType::kF16) {
    widen(src, f16_to_f32, out.f32());
  } else if (!reference::dequantize_row(t.dtype(), src.bytes(), t.numel(), out.f32())) {
    throw Error(ErrorCode::kInternal, fmt::format("[dequantize] {} is no type of weights", name_of(t.dtype())));
  }
  return out;
}

int64_t count_non_finite(DType t, const void* data, int64_t n) { return reference::count_non_finite(t, data, n); }

}  // namespace krait
