// Unsigned codes of a block in element order -> the block's bytes: the inverse of reference::codes.
#pragma once
#include <cstdint>
#include <cstring>

#include "krait/kernels/blocks.h"

namespace krait::quant {

// 32 codes of 4 bits: low nibbles first.
inline void pack_nibbles(const uint8_t* v, uint8_t* q) {
  for (int i = 0; i < 16; ++i) q[i] = static_cast<uint8_t>((v[i] & 15) | (v[i + 16] & 15) << 4);
}

// Bit 4 of 32 codes.
inline void pack_fifth_bits(const uint8_t* v, uint8_t* h) {
  std::memset(h, 0, 4);
  for (int i = 0; i < 32; ++i) h[i / 8] = static_cast<uint8_t>(h[i / 8] | ((v[i] >> 4) & 1) << (i % 8));
}

inline void pack(const uint8_t* v, BlockQ4_0& b) { pack_nibbles(v, b.q); }
inline void pack(const uint8_t* v, BlockQ4_1& b) { pack_nibbles(v, b.q); }
inline void pack(const uint8_t* v, BlockIQ4_NL& b) { pack_nibbles(v, b.q); }
inline void pack(const uint8_t* v, BlockQ5_0& b) {
  pack_nibbles(v, b.q);
  pack_fifth_bits(v, b.h);
}
inline void pack(const uint8_t* v, BlockQ5_1& b) {
  pack_nibbles(v, b.q);
  pack_fifth_bits(v, b.h);
}
inline void pack(const uint8_t* v, BlockIQ4_XS& b) {
  for (int g = 0; g < 8; ++g) pack_nibbles(v + 32 * g, b.q + 16 * g);
}

// The low two bits of 256 codes.
inline void pack_crumbs(const uint8_t* v, uint8_t* q) {
  for (int i = 0; i < 64; ++i) {
    const uint8_t* u = v + i / 32 * 128 + i % 32;
    q[i] = static_cast<uint8_t>((u[0] & 3) | (u[32] & 3) << 2 | (u[64] & 3) << 4 | (u[96] & 3) << 6);
  }
}

inline void pack(const uint8_t* v, BlockQ2_K& b) { pack_crumbs(v, b.q); }
// Bit 2 of code i, in bit i div 32 of byte i mod 32.
inline void pack(const uint8_t* v, BlockQ3_K& b) {
  pack_crumbs(v, b.q);
  std::memset(b.hm, 0, sizeof b.hm);
  for (int i = 0; i < 256; ++i) {
    b.hm[i % 32] = static_cast<uint8_t>(b.hm[i % 32] | ((v[i] >> 2) & 1) << (i / 32));
  }
}

// The low nibbles of 256 codes: two groups of 32 share 32 bytes.
inline void pack_paired_nibbles(const uint8_t* v, uint8_t* q) {
  for (int i = 0; i < 128; ++i) {
    const uint8_t* u = v + i / 32 * 64 + i % 32;
    q[i] = static_cast<uint8_t>((u[0] & 15) | (u[32] & 15) << 4);
  }
}

inline void pack(const uint8_t* v, BlockQ4_K& b) { pack_paired_nibbles(v, b.q); }
inline void pack(const uint8_t* v, BlockQ5_K& b) {
  pack_paired_nibbles(v, b.q);
  std::memset(b.h, 0, sizeof b.h);
  for (int i = 0; i < 256; ++i) {
    b.h[i % 32] = static_cast<uint8_t>(b.h[i % 32] | ((v[i] >> 4) & 1) << (i / 32));
  }
}
inline void pack(const uint8_t* v, BlockQ6_K& b) {
  uint8_t high[256];
  for (int i = 0; i < 256; ++i) high[i] = v[i] >> 4;
  pack_crumbs(high, b.qh);
  for (int i = 0; i < 128; ++i) {  // byte 64a + c holds elements 128a + c and 128a + c + 64
    const uint8_t* u = v + i / 64 * 128 + i % 64;
    b.ql[i] = static_cast<uint8_t>((u[0] & 15) | (u[64] & 15) << 4);
  }
}

// Eight 6-bit scales and minima of Q4_K and Q5_K.
inline void pack_scales6(const uint8_t* scale, const uint8_t* min, uint8_t* s) {
  for (int g = 0; g < 4; ++g) {
    s[g] = static_cast<uint8_t>(scale[g] | (scale[g + 4] >> 4) << 6);
    s[g + 4] = static_cast<uint8_t>(min[g] | (min[g + 4] >> 4) << 6);
    s[g + 8] = static_cast<uint8_t>((scale[g + 4] & 15) | (min[g + 4] & 15) << 4);
  }
}

// Sixteen scales of Q3_K, −32..31.
inline void pack_scales_q3(const int* scale, uint8_t* s) {
  std::memset(s, 0, 12);
  for (int j = 0; j < 16; ++j) {
    const int u = scale[j] + 32;
    s[j % 8] = static_cast<uint8_t>(s[j % 8] | (u & 15) << (j < 8 ? 0 : 4));
    s[8 + j % 4] = static_cast<uint8_t>(s[8 + j % 4] | (u >> 4) << (2 * (j / 4)));
  }
}

// Eight scales of IQ4_XS, −32..31.
inline void pack_scales_iq4(const int* scale, BlockIQ4_XS& b) {
  b.sh = 0;
  std::memset(b.sl, 0, sizeof b.sl);
  for (int g = 0; g < 8; ++g) {
    const int u = scale[g] + 32;
    b.sl[g / 2] = static_cast<uint8_t>(b.sl[g / 2] | (u & 15) << (4 * (g % 2)));
    b.sh = static_cast<uint16_t>(b.sh | (u >> 4) << (2 * g));
  }
}

}  // namespace krait::quant
