// What a norm multiplies its row with.
#pragma once
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {

// 1 / sqrt(squares / n + eps)
KRAIT_INLINE Vec scale_of(float squares, int64_t n, float eps) {
  return rsqrt(add(div(set1(squares), set1(static_cast<float>(n))), set1(eps)));
}

}  // namespace krait::KRAIT_ISA
