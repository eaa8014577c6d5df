// Definition of the matmul with block types, to the bit: activations are quantized by row and 32 columns, products are
// exact integers within a group of the weight, groups are summed in f32 in ascending order.
#pragma once
#include <bit>
#include <cmath>
#include <limits>

#include "krait/kernels/matmul.h"
#include "krait/kernels/reference/dequantize.h"

namespace krait::reference {

// Below this magnitude 127/|x| nears the largest f32: 32 columns that are all smaller count as zeros.
constexpr float kSmallestQuantized = 0x1p-118f;

// x[32] ≈ dx·q, q in −127..127. An infinity or NaN makes dx NaN.
struct Quantized32 {
  float dx;
  int8_t q[32];
};
inline Quantized32 quantize_32(const float* x) {
  uint32_t bits = 0;  // of the largest magnitude; NaN beats infinity
  for (int i = 0; i < 32; ++i) bits = std::max(bits, std::bit_cast<uint32_t>(x[i]) & 0x7FFFFFFFu);
  const float largest = std::bit_cast<float>(bits);
  Quantized32 out{};
  if (!(largest <= std::numeric_limits<float>::max())) {
    out.dx = std::numeric_limits<float>::quiet_NaN();
  } else if (largest >= kSmallestQuantized) {
    out.dx = largest / 127.0f;
    const float inverse = 127.0f / largest;
    for (int i = 0; i < 32; ++i) out.q[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
  }
  return out;
}

// sum + the products of one block with as many activations.
template <DType kType>
float add_block(const typename BlockOf<kType>::type& b, const Quantized32* x, float sum) {
  constexpr int kElements = static_cast<int>(block_of(kType).elements), kGroup = static_cast<int>(group_of(kType));
  int8_t code[kElements];
  codes(b, code);
  for (int k = 0; k < kElements; k += kGroup) {
    const Quantized32& a = x[k / 32];
    int product = 0, total = 0;
    for (int i = 0; i < kGroup; ++i) {
      product += code[k + i] * a.q[k % 32 + i];
      total += a.q[k % 32 + i];
    }
    sum = std::fma(static_cast<float>(product), a.dx * group_scale(b, k / kGroup), sum);
    if constexpr (form_of(kType) != BlockForm::kScaled) {
      const float offset = group_offset(b, k / kGroup);
      sum = std::fma(a.dx * static_cast<float>(total), form_of(kType) == BlockForm::kPlus ? offset : -offset, sum);
    }
  }
  return sum;
}

// One row of a weight, K columns, times one quantized row of activations.
template <DType kType>
float block_dot(const void* w, const Quantized32* x, int64_t K) {
  using Block = typename BlockOf<kType>::type;
  float sum = 0.0f;
  const auto* p = static_cast<const std::byte*>(w);
  for (int64_t k = 0; k < K; k += block_of(kType).elements, p += sizeof(Block)) {
    Block b;
    std::memcpy(&b, p, sizeof b);
    sum = add_block<kType>(b, x + k / 32, sum);
  }
  return sum;
}

inline float block_dot(DType t, const void* w, const Quantized32* x, int64_t K) {
  switch (t) {
#define KRAIT_BLOCK_DOT(name) \
  case DType::k##name:        \
    return block_dot<DType::k##name>(w, x, K);
    KRAIT_BLOCK_TYPES(KRAIT_BLOCK_DOT)
#undef KRAIT_BLOCK_DOT
    default:
      return std::numeric_limits<float>::quiet_NaN();
  }
}

}  // namespace krait::reference
