#include "krait/ops/dequantize.h"

#include <fmt/format.h>

#include <cstring>

#include "krait/core/error.h"
#include "krait/core/half.h"
#include "krait/kernels/reference/dequantize.h"

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

template <class Block>
bool has_finite_scales(const Block& b) {
  const auto finite = [](uint16_t half) { return (half & 0x7C00) != 0x7C00; };
  if constexpr (requires { b.dmin; }) {
    return finite(b.d) && finite(b.dmin);
  } else if constexpr (requires { b.m; }) {
    return finite(b.d) && finite(b.m);
  } else {
    return finite(b.d);
  }
}

// Elements of blocks with an infinity or NaN for a scale: it makes each of them one, or a NaN.
template <DType kType>
int64_t count_bad_blocks(const std::byte* bytes, int64_t n) {
  constexpr BlockLayout kLayout = block_of(kType);
  int64_t bad = 0;
  for (int64_t i = 0; i < n / kLayout.elements; ++i) {
    typename BlockOf<kType>::type b;
    std::memcpy(&b, bytes + i * kLayout.bytes, sizeof b);
    bad += has_finite_scales(b) ? 0 : kLayout.elements;
  }
  return bad;
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

int64_t count_non_finite_blocks(const Tensor& t) {
  switch (t.dtype()) {
#define KRAIT_COUNT(name) \
  case DType::k##name:    \
    return count_bad_blocks<DType::k##name>(t.bytes(), t.numel());
    KRAIT_BLOCK_TYPES(KRAIT_COUNT)
#undef KRAIT_COUNT
    default:
      throw Error(ErrorCode::kInternal, fmt::format("[dequantize] {} has no blocks", name_of(t.dtype())));
  }
}

}  // namespace krait
