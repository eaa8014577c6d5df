// Blocks of the quantized types, byte for byte as GGUF files hold them (spec/gguf.md §5.2). Halves (f16) are uint16_t.
#pragma once
#include <cstdint>

#include "krait/core/dtype.h"

namespace krait {

// x = d·q
struct BlockQ8_0 {
  uint16_t d;
  int8_t q[32];
};
// x = d·(v − 8); nibble i is element i (low) and i + 16 (high)
struct BlockQ4_0 {
  uint16_t d;
  uint8_t q[16];
};
// x = d·v + m
struct BlockQ4_1 {
  uint16_t d, m;
  uint8_t q[16];
};
// x = d·(v − 16); bit 4 of element i is bit i of the little-endian h
struct BlockQ5_0 {
  uint16_t d;
  uint8_t h[4];
  uint8_t q[16];
};
// x = d·v + m
struct BlockQ5_1 {
  uint16_t d, m;
  uint8_t h[4];
  uint8_t q[16];
};
// Groups of 16: x = d·(s & 15)·v − dmin·(s >> 4)
struct BlockQ2_K {
  uint8_t s[16];
  uint8_t q[64];
  uint16_t d, dmin;
};
// Groups of 16: x = d·(scale − 32)·v, v in −4..3
struct BlockQ3_K {
  uint8_t hm[32];
  uint8_t q[64];
  uint8_t s[12];
  uint16_t d;
};
// Groups of 32: x = d·sc·v − dmin·mn, 6-bit sc and mn
struct BlockQ4_K {
  uint16_t d, dmin;
  uint8_t s[12];
  uint8_t q[128];
};
struct BlockQ5_K {
  uint16_t d, dmin;
  uint8_t s[12];
  uint8_t h[32];
  uint8_t q[128];
};
// Groups of 16: x = d·s·(v − 32)
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t s[16];
  uint16_t d;
};
// x = d·kIq4Values[v]
struct BlockIQ4_NL {
  uint16_t d;
  uint8_t q[16];
};
// Groups of 32: x = d·(ls − 32)·kIq4Values[v]
struct BlockIQ4_XS {
  uint16_t d, sh;
  uint8_t sl[4];
  uint8_t q[128];
};

inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

template <DType kType>
struct BlockOf;
#define KRAIT_BLOCK_TYPES(X) \
  X(Q8_0) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ4_NL) X(IQ4_XS)
#define KRAIT_BLOCK_OF(name)       \
  template <>                      \
  struct BlockOf<DType::k##name> { \
    using type = Block##name;      \
  };                               \
  static_assert(sizeof(Block##name) == block_of(DType::k##name).bytes);
KRAIT_BLOCK_TYPES(KRAIT_BLOCK_OF)
#undef KRAIT_BLOCK_OF

}  // namespace krait
