// Definition of the block types (spec/gguf.md §5.2): the integer codes of a block in element order, the scales of its
// groups, and the f32 values they stand for, in the order of operations that fixes every bit.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "krait/core/half.h"
#include "krait/kernels/blocks.h"

namespace krait::reference {

// Elements that share one scale.
constexpr int64_t group_of(DType t) {
  switch (t) {
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kQ6_K:
      return 16;
    default:
      return is_block_type(t) ? 32 : 1;
  }
}

// How a value follows from code q, scale s and offset m of its group.
enum class BlockForm : uint8_t {
  kScaled,  // s·q
  kPlus,    // s·q + m
  kMinus,   // s·q − m
};
constexpr BlockForm form_of(DType t) {
  switch (t) {
    case DType::kQ4_1:
    case DType::kQ5_1:
      return BlockForm::kPlus;
    case DType::kQ2_K:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return BlockForm::kMinus;
    default:
      return BlockForm::kScaled;
  }
}

// codes(b, q): the codes of a block, signed where the type centres them (Q4_0: −8..7, Q6_K: −32..31, IQ4: the table's
// values), unsigned where the type has an offset.

inline void codes(const BlockQ8_0& b, int8_t* q) { std::memcpy(q, b.q, sizeof b.q); }

// The nibbles of 16 bytes: low ones first.
inline void nibbles(const uint8_t* bytes, int8_t* q) {
  for (int i = 0; i < 16; ++i) {
    q[i] = static_cast<int8_t>(bytes[i] & 15);
    q[i + 16] = static_cast<int8_t>(bytes[i] >> 4);
  }
}

// Adds bit i of the little-endian h as bit 4 of code i.
inline void fifth_bits(const uint8_t* h, int8_t* q) {
  for (int i = 0; i < 32; ++i) q[i] = static_cast<int8_t>(q[i] | ((h[i / 8] >> (i % 8)) & 1) << 4);
}

inline void shift_codes(int8_t* q, int n, int by) {
  for (int i = 0; i < n; ++i) q[i] = static_cast<int8_t>(q[i] - by);
}

inline void codes(const BlockQ4_0& b, int8_t* q) {
  nibbles(b.q, q);
  shift_codes(q, 32, 8);
}
inline void codes(const BlockQ4_1& b, int8_t* q) { nibbles(b.q, q); }
inline void codes(const BlockQ5_0& b, int8_t* q) {
  nibbles(b.q, q);
  fifth_bits(b.h, q);
  shift_codes(q, 32, 16);
}
inline void codes(const BlockQ5_1& b, int8_t* q) {
  nibbles(b.q, q);
  fifth_bits(b.h, q);
}

// Four codes of two bits in each byte: byte 32a + l holds elements 128a + 32k + l.
inline void crumbs(const uint8_t* bytes, int8_t* q) {
  for (int i = 0; i < 256; ++i) {
    const int a = i / 128, k = i / 32 % 4, l = i % 32;
    q[i] = static_cast<int8_t>((bytes[32 * a + l] >> (2 * k)) & 3);
  }
}

inline void codes(const BlockQ2_K& b, int8_t* q) { crumbs(b.q, q); }
inline void codes(const BlockQ3_K& b, int8_t* q) {
  crumbs(b.q, q);
  for (int i = 0; i < 256; ++i) {
    if (((b.hm[i % 32] >> (i / 32)) & 1) == 0) q[i] = static_cast<int8_t>(q[i] - 4);
  }
}

// Two groups of 32 in each 32 bytes: low nibbles, then high ones.
inline void paired_nibbles(const uint8_t* bytes, int8_t* q) {
  for (int i = 0; i < 256; ++i) {
    const int g = i / 32, l = i % 32;
    q[i] = static_cast<int8_t>((bytes[32 * (g / 2) + l] >> (4 * (g % 2))) & 15);
  }
}

inline void codes(const BlockQ4_K& b, int8_t* q) { paired_nibbles(b.q, q); }
inline void codes(const BlockQ5_K& b, int8_t* q) {
  paired_nibbles(b.q, q);
  for (int i = 0; i < 256; ++i) q[i] = static_cast<int8_t>(q[i] | ((b.h[i % 32] >> (i / 32)) & 1) << 4);
}
inline void codes(const BlockQ6_K& b, int8_t* q) {
  for (int i = 0; i < 256; ++i) {
    const int a = i / 128, k = i / 32 % 4, l = i % 32;
    const int low = (b.ql[64 * a + 32 * (k % 2) + l] >> (4 * (k / 2))) & 15;
    const int high = (b.qh[32 * a + l] >> (2 * k)) & 3;
    q[i] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

inline void iq4_values(int8_t* q, int n) {
  for (int i = 0; i < n; ++i) q[i] = kIq4Values[q[i]];
}
inline void codes(const BlockIQ4_NL& b, int8_t* q) {
  nibbles(b.q, q);
  iq4_values(q, 32);
}
inline void codes(const BlockIQ4_XS& b, int8_t* q) {
  for (int g = 0; g < 8; ++g) nibbles(b.q + 16 * g, q + 32 * g);
  iq4_values(q, 256);
}

// The 6-bit scale and minimum of group g of Q4_K and Q5_K.
inline int scale6(const uint8_t* s, int g) { return g < 4 ? s[g] & 63 : (s[g + 4] & 15) | (s[g - 4] >> 6) << 4; }
inline int min6(const uint8_t* s, int g) { return g < 4 ? s[g + 4] & 63 : (s[g + 4] >> 4) | (s[g] >> 6) << 4; }

// Scale of group j of Q3_K, −32..31.
inline int scale_q3(const uint8_t* s, int j) {
  const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
  return (low | ((s[8 + j % 4] >> (2 * (j / 4))) & 3) << 4) - 32;
}

// Scale of group g of IQ4_XS, −32..31.
inline int scale_iq4(const BlockIQ4_XS& b, int g) {
  return (((b.sl[g / 2] >> (4 * (g % 2))) & 15) | ((b.sh >> (2 * g)) & 3) << 4) - 32;
}

// Integer scale and offset of group g; the factor of 32-element types is 1 and their offset is the block's own.
template <class B>
int int_scale([[maybe_unused]] const B& b, [[maybe_unused]] int g) {
  if constexpr (std::is_same_v<B, BlockQ2_K>) {
    return b.s[g] & 15;
  } else if constexpr (std::is_same_v<B, BlockQ3_K>) {
    return scale_q3(b.s, g);
  } else if constexpr (std::is_same_v<B, BlockQ4_K> || std::is_same_v<B, BlockQ5_K>) {
    return scale6(b.s, g);
  } else if constexpr (std::is_same_v<B, BlockQ6_K>) {
    return b.s[g];
  } else if constexpr (std::is_same_v<B, BlockIQ4_XS>) {
    return scale_iq4(b, g);
  } else {
    return 1;
  }
}
template <class B>
int int_min(const B& b, int g) {
  if constexpr (std::is_same_v<B, BlockQ2_K>) {
    return b.s[g] >> 4;
  } else {
    return min6(b.s, g);
  }
}

// The scale s of group g in f32.
template <class B>
float group_scale(const B& b, int g) {
  return f16_to_f32(b.d) * static_cast<float>(int_scale(b, g));
}
// The offset m of group g of a type with kPlus or kMinus.
template <class B>
float group_offset(const B& b, [[maybe_unused]] int g) {
  if constexpr (requires { b.dmin; }) {
    return f16_to_f32(b.dmin) * static_cast<float>(int_min(b, g));
  } else {
    return f16_to_f32(b.m);
  }
}

// The values of one block.
template <DType kType>
void decode(const typename BlockOf<kType>::type& b, float* out) {
  constexpr int kElements = static_cast<int>(block_of(kType).elements), kGroup = static_cast<int>(group_of(kType));
  int8_t q[kElements];
  codes(b, q);
  for (int i = 0; i < kElements; i += kGroup) {
    const float s = group_scale(b, i / kGroup);
    for (int l = i; l < i + kGroup; ++l) out[l] = s * static_cast<float>(q[l]);
    if constexpr (form_of(kType) != BlockForm::kScaled) {
      const float m = group_offset(b, i / kGroup);
      for (int l = i; l < i + kGroup; ++l) out[l] = form_of(kType) == BlockForm::kPlus ? out[l] + m : out[l] - m;
    }
  }
}

template <DType kType>
void dequantize_blocks(const void* blocks, int64_t n, float* out) {
  const auto* p = static_cast<const std::byte*>(blocks);
  for (int64_t i = 0; i < n; i += block_of(kType).elements, p += block_of(kType).bytes) {
    typename BlockOf<kType>::type b;
    std::memcpy(&b, p, sizeof b);
    decode<kType>(b, out + i);
  }
}

// n elements (whole blocks) of a block type -> f32. `blocks` needs no alignment. Plain types are left alone: false.
inline bool dequantize_row(DType t, const void* blocks, int64_t n, float* out) {
  switch (t) {
#define KRAIT_DEQUANTIZE(name)                         \
  case DType::k##name:                                 \
    dequantize_blocks<DType::k##name>(blocks, n, out); \
    return true;
    KRAIT_BLOCK_TYPES(KRAIT_DEQUANTIZE)
#undef KRAIT_DEQUANTIZE
    default:
      return false;
  }
}

}  // namespace krait::reference
