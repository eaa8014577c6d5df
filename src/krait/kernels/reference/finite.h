// NaNs and infinities among stored weights.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "krait/kernels/blocks.h"

namespace krait::reference {

// Elements whose exponent bits are all ones.
template <class U>
int64_t count_exponent(const std::byte* bytes, int64_t n, U mask) {
  int64_t bad = 0;
  constexpr int64_t kBlock = 4096;
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t m = std::min(kBlock, n - i);
    U u[kBlock];
    std::memcpy(u, bytes + i * static_cast<int64_t>(sizeof(U)), static_cast<size_t>(m) * sizeof(U));
    U found = 0;
    for (int64_t j = 0; j < m; ++j) found = static_cast<U>(found + ((u[j] & mask) == mask ? 1 : 0));
    bad += static_cast<int64_t>(found);  // at most kBlock: fits in 16 bits
  }
  return bad;
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

// Of n elements (whole blocks) of any alignment; types that are neither floats nor blocks have none.
inline int64_t count_non_finite(DType t, const void* data, int64_t n) {
  const auto* bytes = static_cast<const std::byte*>(data);
  switch (t) {
    case DType::kF32:
      return count_exponent<uint32_t>(bytes, n, 0x7F800000u);
    case DType::kBF16:
      return count_exponent<uint16_t>(bytes, n, 0x7F80u);
    case DType::kF16:
      return count_exponent<uint16_t>(bytes, n, 0x7C00u);
    case DType::kF64:
      return count_exponent<uint64_t>(bytes, n, 0x7FF0000000000000u);
#define KRAIT_COUNT(name) \
  case DType::k##name:    \
    return count_bad_blocks<DType::k##name>(bytes, n);
      KRAIT_BLOCK_TYPES(KRAIT_COUNT)
#undef KRAIT_COUNT
    default:
      return 0;
  }
}

}  // namespace krait::reference
