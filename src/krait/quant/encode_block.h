// One block from its values; what encode.cc calls for each.
#pragma once
#include <algorithm>
#include <cstdint>

#include "krait/core/half.h"
#include "krait/kernels/blocks.h"

namespace krait::quant {

// The values of a block divided by `unit` (the largest magnitude, so that sums of squares cannot overflow), the
// weights of their squared errors, and halves in that unit.
struct BlockValues {
  const float* x;
  const float* w;
  float unit;

  uint16_t half_of(float s) const { return f32_to_f16(std::clamp(s * unit, -65504.0f, 65504.0f)); }
  float value_of(uint16_t half) const { return f16_to_f32(half) / unit; }
};

#define KRAIT_ENCODE_BLOCK(name) void encode_block(const BlockValues&, Block##name&);
KRAIT_BLOCK_TYPES(KRAIT_ENCODE_BLOCK)
#undef KRAIT_ENCODE_BLOCK

// The half nearest to h that many steps further from zero; stays finite and on its side of zero.
inline uint16_t half_step(uint16_t h, int steps) {
  const int magnitude = std::clamp((h & 0x7FFF) + steps, 0, 0x7BFF);
  return static_cast<uint16_t>((h & 0x8000) | magnitude);
}

}  // namespace krait::quant
