// The integer microkernel template (layouts and the order of the sums: int8_format.h).
#pragma once
#include "krait/backends/cpu/isa/int8_tile.h"

namespace krait::KRAIT_ISA {

// The values of a table type with its centre added: whole, and as two numbers of 4 bits, value = low + 16·high.
struct Iq4Table {
  uint8_t whole[16], low[16], high[16];
};
constexpr Iq4Table make_iq4_table() {
  Iq4Table t{};
  for (int i = 0; i < 16; ++i) {
    t.whole[i] = static_cast<uint8_t>(kIq4Values[i] + 128);
    t.low[i] = t.whole[i] & 15;
    t.high[i] = t.whole[i] >> 4;
  }
  return t;
}
constexpr Iq4Table kIq4Table = make_iq4_table();

KRAIT_INLINE IVec broadcast_i(const char* p) {
  int v;
  __builtin_memcpy(&v, p, 4);
  return set1_i32(v);
}
KRAIT_INLINE Vec broadcast_f(const char* p) { return broadcast(reinterpret_cast<const float*>(p)); }

// Where the v-th strip of a tile lies, from the pointer of the first.
KRAIT_INLINE int64_t strip_at(int v, int64_t w_stride, int width) {
  return v / kStrips * w_stride + v % kStrips * width;
}

#ifdef __AVX512VNNI__
// sum[m][v] += Σ code·q over steps [j0, j0 + kSteps).
template <DType kType, int kSteps, int MR, int NV>
KRAIT_INLINE void dot(IVec (&sum)[MR][NV], const char* x, const char* w, int64_t stride, int j0) {
  constexpr Format f = format_of(kType);
  KRAIT_UNROLL for (int j = j0; j < j0 + kSteps; ++j) {
    IVec code[NV];
    KRAIT_UNROLL for (int v = 0; v < NV; ++v) {
      code[v] = unpack<f.bits>(w + strip_at(v, stride, 32), j);
      if constexpr (f.table) code[v] = look_up(kIq4Table.whole, code[v]);
    }
    KRAIT_UNROLL for (int m = 0; m < MR; ++m) {
      const IVec q = broadcast_i(x + 4 * (j * MR + m));
      KRAIT_UNROLL for (int v = 0; v < NV; ++v) sum[m][v] = _mm512_dpbusd_epi32(sum[m][v], code[v], q);
    }
  }
}
#else
// Without VNNI products are summed in 16 bits, as many as cannot saturate: 2·2^bits·127 a step. Codes of 8 bits go as
// two of 4, whose sums are put together afterwards.
template <DType kType, int kSteps, int MR, int NV>
KRAIT_INLINE void dot(IVec (&sum)[MR][NV], const char* x, const char* w, int64_t stride, int j0) {
  constexpr Format f = format_of(kType);
  constexpr int kParts = f.bits == 8 || f.table ? 2 : 1;
  constexpr int kSafe = f.bits == 6 ? 2 : f.bits == 5 ? 4 : 8, kRun = kSteps < kSafe ? kSteps : kSafe;
  KRAIT_UNROLL for (int i = j0; i < j0 + kSteps; i += kRun) {
    IVec part[kParts][MR][NV];
    KRAIT_UNROLL for (int j = i; j < i + kRun; ++j) {
      IVec code[kParts][NV];
      KRAIT_UNROLL for (int v = 0; v < NV; ++v) {
        const IVec c = unpack<f.bits>(w + strip_at(v, stride, 32), j);
        if constexpr (kParts == 1) {
          code[0][v] = c;
        } else {
          code[0][v] = f.table ? look_up(kIq4Table.low, c) : bit_and(c, set1_i8(15));
          code[1][v] = f.table ? look_up(kIq4Table.high, c) : bit_and(shift_right(c, 4), set1_i8(15));
        }
      }
      KRAIT_UNROLL for (int m = 0; m < MR; ++m) {
        const IVec q = broadcast_i(x + 4 * (j * MR + m));
        KRAIT_UNROLL for (int k = 0; k < kParts; ++k) {
          KRAIT_UNROLL for (int v = 0; v < NV; ++v) {
            const IVec product = mul_u8_i8(code[k][v], q);
            part[k][m][v] = j == i ? product : add_i16(part[k][m][v], product);
            asm("" : "+v"(part[k][m][v]));  // added now: the compiler would rather keep all products until the end
          }
        }
      }
    }
    KRAIT_UNROLL for (int k = 0; k < kParts; ++k) {
      const IVec weight = set1_i16(k == 0 ? 1 : 16);
      KRAIT_UNROLL for (int m = 0; m < MR; ++m) {
        KRAIT_UNROLL for (int v = 0; v < NV; ++v) { sum[m][v] = add_i32(sum[m][v], mul_i16(part[k][m][v], weight)); }
      }
    }
  }
}
#endif

// Scales of one strip and block.
template <DType kType>
struct StripScales {
  static constexpr Format f = format_of(kType);
  Vec d, dmin;
  const char* bytes;

  // `scales` is where the block's scales begin, `strip` the strip's number in its panel.
  KRAIT_INLINE StripScales load_block(const char* scales, int64_t strip) {
    StripScales s;
    const auto* halves = reinterpret_cast<const uint16_t*>(scales) + strip * kLanes;
    s.d = load_f16(halves);
    s.dmin = f.offsets() ? load_f16(halves + kPanel) : zero();
    if constexpr (f.form == ScaleForm::kBytePairs || f.form == ScaleForm::kNibblePairs) s.dmin = sub(zero(), s.dmin);
    s.bytes = scales + f.half_bytes() + strip * kLanes;
    return s;
  }
  KRAIT_INLINE Vec scale(const StripScales& s, int64_t g) {
    const char* p = s.bytes + g * f.group_scale_bytes();
    if constexpr (f.form == ScaleForm::kSigned) return mul(s.d, to_f32(load_i8(p)));
    if constexpr (f.form == ScaleForm::kBytePairs) return mul(s.d, to_f32(load_u8(p)));
    if constexpr (f.form == ScaleForm::kNibblePairs) return mul(s.d, to_f32(bit_and(load_u8(p), set1_i32(15))));
    return s.d;
  }
  KRAIT_INLINE Vec offset(const StripScales& s, int64_t g) {
    const char* p = s.bytes + g * f.group_scale_bytes();
    if constexpr (f.form == ScaleForm::kBytePairs) return mul(s.dmin, to_f32(load_u8(p + kPanel)));
    if constexpr (f.form == ScaleForm::kNibblePairs) return mul(s.dmin, to_f32(shift_right(load_u8(p), 4)));
    return s.dmin;
  }
};

// acc += the products of 32 k, the c-th of their block.
template <DType kType, int MR, int NV>
KRAIT_INLINE void add_32(Vec (&acc)[MR][NV], const char* x, const char* w, int64_t stride,
                         const StripScales<kType> (&scales)[NV], int64_t c) {
  constexpr Format f = format_of(kType);
  constexpr int kGroups = f.groups();
  constexpr int kCentre = 36 * MR, kSums = kCentre + (f.centre != 0 ? 4 * kGroups * MR : 0);
  KRAIT_UNROLL for (int h = 0; h < kGroups; ++h) {
    IVec sum[MR][NV];
    KRAIT_UNROLL for (int m = 0; m < MR; ++m) {
      const IVec start = f.centre != 0 ? broadcast_i(x + kCentre + 4 * (h * MR + m)) : zero_i();
      KRAIT_UNROLL for (int v = 0; v < NV; ++v) sum[m][v] = start;
    }
    dot<kType, f.group / 4>(sum, x, w, stride, h * f.group / 4);
    const int64_t g = c * kGroups + h;
    KRAIT_UNROLL for (int v = 0; v < NV; ++v) {
      const Vec s = StripScales<kType>::scale(scales[v], g);
      KRAIT_UNROLL for (int m = 0; m < MR; ++m) {
        acc[m][v] = fma(to_f32(sum[m][v]), mul(s, broadcast_f(x + 32 * MR + 4 * m)), acc[m][v]);
      }
      if constexpr (f.offsets()) {
        const Vec offset = StripScales<kType>::offset(scales[v], g);
        KRAIT_UNROLL for (int m = 0; m < MR; ++m) {
          acc[m][v] = fma(broadcast_f(x + kSums + 4 * (h * MR + m)), offset, acc[m][v]);
        }
      }
    }
  }
}

KRAIT_INLINE void store_strip(float* y, Vec sum, const float* bias, int64_t cols) {
  if (cols >= kLanes) {
    store(y, bias != nullptr ? add(sum, load(bias)) : sum);
  } else if (cols > 0) {
    const Part lanes = first_lanes(cols);
    store(y, bias != nullptr ? add(sum, load(bias, lanes)) : sum, lanes);
  }
}

// Bytes of codes between what a tile reads and what it asks for, over all its strips: about 150 ns at full bandwidth.
constexpr int kAhead = 6144;

KRAIT_INLINE void fetch(const char* p, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(p + at, 0, 2);
}

template <DType kType, int MR, int NV>
void int8_tile(const Int8Tile& t) {
  constexpr Format f = format_of(kType);
  constexpr int64_t kBlock = block_of(kType).elements, kPanels = (NV + kStrips - 1) / kStrips;
  constexpr int64_t kAhead32 = kAhead / (kPanels * f.code_bytes());  // in units of 32 k
  Vec acc[MR][NV];
  KRAIT_UNROLL for (int m = 0; m < MR; ++m) { KRAIT_UNROLL for (int v = 0; v < NV; ++v) acc[m][v] = zero(); }
  const char* x = t.x;
  const char* codes = t.w + t.strip * 32;
  const char* blocks = t.w + t.K / 32 * f.code_bytes();
  const int64_t stride = t.w_stride;
  // Past the end of a panel comes the panel that the next tile reads.
  const int64_t next_codes = kPanels * stride - t.K / 32 * f.code_bytes();
  const int64_t next_blocks = kPanels * stride - t.K / kBlock * int8_scale_bytes(kType);
  for (int64_t k = 0; k < t.K; k += kBlock) {
    StripScales<kType> scales[NV];
    KRAIT_UNROLL for (int v = 0; v < NV; ++v) {
      scales[v] = StripScales<kType>::load_block(blocks + v / kStrips * stride, t.strip + v % kStrips);
    }
    const char* far_blocks = blocks + int8_scale_bytes(kType) * (kBlock == 32 ? 4 : 1);
    if (k + kBlock * (kBlock == 32 ? 4 : 1) >= t.K) far_blocks += next_blocks;
    KRAIT_UNROLL for (int v = 0; v < kPanels; ++v) fetch(far_blocks + v * stride, int8_scale_bytes(kType));
    for (int64_t c = 0; c < kBlock / 32; ++c) {
      const char* far = codes + kAhead32 * f.code_bytes() + (k + 32 * (c + kAhead32) >= t.K ? next_codes : 0);
      KRAIT_UNROLL for (int v = 0; v < kPanels; ++v) fetch(far + v * stride, f.code_bytes());
      add_32<kType, MR, NV>(acc, x, codes, stride, scales, c);
      x += f.x_bytes() * MR;
      codes += f.code_bytes();
    }
    blocks += int8_scale_bytes(kType);
  }
  KRAIT_UNROLL for (int m = 0; m < MR; ++m) {
    if (m < t.rows) {
      KRAIT_UNROLL for (int v = 0; v < NV; ++v) {
        const float* bias = t.bias != nullptr ? t.bias + v * kLanes : nullptr;
        store_strip(t.y + m * t.ldy + v * kLanes, acc[m][v], bias, t.cols - v * kLanes);
      }
    }
  }
}

template <DType kType, int kClass>
constexpr void fill_int8(Int8Kernels& k) {
  k.at[kClass] = int8_tile<kType, kInt8Rows[kClass], 1>;
  k.wide[kClass] = int8_tile<kType, kInt8Rows[kClass], kInt8Strips[kClass]>;
  if constexpr (kClass + 1 < kInt8Classes) fill_int8<kType, kClass + 1>(k);
}

template <DType kType>
constexpr Int8Kernels make_int8_kernels() {
  Int8Kernels k{};
  fill_int8<kType, 0>(k);
  return k;
}

}  // namespace krait::KRAIT_ISA
