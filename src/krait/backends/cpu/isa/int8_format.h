// How block types are packed, and how the integer kernels read them.
//
// A packed weight is a row of panels of 16 output columns (rows of W). A panel is
//   [K / 32] codes of 32 k    [K / block] scales    padded to 64 bytes
// 32 k are 8 steps of [16 rows][4 k] codes, one byte each once unpacked: a step is what vpdpbusd multiplies. Codes are
// stored in planes of whole bits, 64 bytes for each bit of a code: 8 bits are the 8 steps as they are; of 4 bits byte b
// of vector j holds steps j (low) and j + 4; of 2 bits step j is pair j / 2 of vector j % 2; of 1 bit it is bit j.
// Types of 5, 6 and 3 bits are a plane of their low 4 or 2 bits and one of the rest.
// Scales of a block: [16] halves d, [16] halves of the offsets' factor, then bytes [groups][16] (ScaleForm).
// Codes are unsigned; centred types subtract `centre` times the sum of the activations, exactly, in integers.
//
// Activations are quantized by row and 32 k: x ≈ dx·q. Panels of MR rows are, for each 32 k, words of 4 bytes
// [words][MR]: 8 steps of q [4] s8, dx f32, −centre·Σq s32 [groups] if centred, dx·Σq f32 [groups] if the type has
// offsets.
//
// y = Σ over groups, ascending, fma((Σ code·q − centre·Σq), dx·s, ·) then, with offsets, fma(dx·Σq, offset, ·):
// kernels/reference/block_matmul.h, to the bit, whatever the tile.
#pragma once
#include "krait/backends/cpu/isa/matmul_tile.h"
#include "krait/kernels/blocks.h"

namespace krait::KRAIT_ISA {

enum class ScaleForm : uint8_t {
  kHalf,         // s = d
  kHalves,       // s = d, offset = m
  kSigned,       // s = d·i8
  kBytePairs,    // s = d·u8, offset = −dmin·u8; bytes [groups][2][16]
  kNibblePairs,  // s = d·(u8 & 15), offset = −dmin·(u8 >> 4)
};

struct Format {
  int bits, group, centre;
  ScaleForm form;
  bool table = false;  // codes stand for kIq4Values + centre

  constexpr bool offsets() const {
    return form == ScaleForm::kHalves || form == ScaleForm::kBytePairs || form == ScaleForm::kNibblePairs;
  }
  constexpr int groups() const { return 32 / group; }  // of 32 k
  constexpr int code_bytes() const { return 64 * bits; }
  constexpr int group_scale_bytes() const {
    return form == ScaleForm::kBytePairs                                   ? 2 * kPanel
           : form == ScaleForm::kSigned || form == ScaleForm::kNibblePairs ? kPanel
                                                                           : 0;
  }
  constexpr int half_bytes() const { return (offsets() ? 4 : 2) * kPanel; }
  constexpr int x_bytes() const {
    return 36 + groups() * ((centre != 0 ? 4 : 0) + (offsets() ? 4 : 0));
  }  // a row, 32 k
};

constexpr Format format_of(DType t) {
  switch (t) {
    case DType::kQ8_0:
      return {8, 32, 128, ScaleForm::kHalf};
    case DType::kQ4_0:
      return {4, 32, 8, ScaleForm::kHalf};
    case DType::kQ4_1:
      return {4, 32, 0, ScaleForm::kHalves};
    case DType::kQ5_0:
      return {5, 32, 16, ScaleForm::kHalf};
    case DType::kQ5_1:
      return {5, 32, 0, ScaleForm::kHalves};
    case DType::kQ2_K:
      return {2, 16, 0, ScaleForm::kNibblePairs};
    case DType::kQ3_K:
      return {3, 16, 4, ScaleForm::kSigned};
    case DType::kQ4_K:
      return {4, 32, 0, ScaleForm::kBytePairs};
    case DType::kQ5_K:
      return {5, 32, 0, ScaleForm::kBytePairs};
    case DType::kQ6_K:
      return {6, 16, 32, ScaleForm::kSigned};
    case DType::kIQ4_NL:
      return {4, 32, 128, ScaleForm::kHalf, true};
    case DType::kIQ4_XS:
      return {4, 32, 128, ScaleForm::kSigned, true};
    default:
      return {};
  }
}

constexpr int64_t int8_scale_bytes(DType t) {  // of a panel and block
  const Format f = format_of(t);
  return f.half_bytes() + block_of(t).elements / f.group * f.group_scale_bytes();
}
constexpr int64_t int8_panel_bytes(DType t, int64_t K) {
  const int64_t bytes = K / 32 * format_of(t).code_bytes() + K / block_of(t).elements * int8_scale_bytes(t);
  return (bytes + 63) / 64 * 64;
}

// Vectors of integers.
#ifdef __AVX512F__
using IVec = __m512i;
typedef uint16_t Shorts __attribute__((vector_size(64)));
KRAIT_INLINE IVec load_i(const void* p) { return _mm512_loadu_si512(p); }
KRAIT_INLINE void stream_i(void* p, IVec v) { _mm512_stream_si512(static_cast<IVec*>(p), v); }
KRAIT_INLINE IVec zero_i() { return _mm512_setzero_si512(); }
KRAIT_INLINE IVec set1_i8(int v) { return _mm512_set1_epi8(static_cast<char>(v)); }
KRAIT_INLINE IVec set1_i16(int v) { return _mm512_set1_epi16(static_cast<int16_t>(v)); }
KRAIT_INLINE IVec set1_i32(int v) { return _mm512_set1_epi32(v); }
KRAIT_INLINE IVec bit_and(IVec a, IVec b) { return _mm512_and_si512(a, b); }
KRAIT_INLINE IVec bit_or(IVec a, IVec b) { return _mm512_or_si512(a, b); }
KRAIT_INLINE IVec bit_xor(IVec a, IVec b) { return _mm512_xor_si512(a, b); }
KRAIT_INLINE IVec masked_or(IVec a, IVec mask, IVec b) { return _mm512_ternarylogic_epi64(a, mask, b, 0xEA); }
KRAIT_INLINE IVec add_i16(IVec a, IVec b) { return _mm512_add_epi16(a, b); }
KRAIT_INLINE IVec add_i32(IVec a, IVec b) { return _mm512_add_epi32(a, b); }
KRAIT_INLINE IVec mul_u8_i8(IVec a, IVec b) { return _mm512_maddubs_epi16(a, b); }  // sums of pairs
KRAIT_INLINE IVec mul_i16(IVec a, IVec b) { return _mm512_madd_epi16(a, b); }       // sums of pairs
KRAIT_INLINE IVec look_up(const void* table16, IVec codes) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(static_cast<const __m128i*>(table16))), codes);
}
KRAIT_INLINE Vec to_f32(IVec v) { return _mm512_cvtepi32_ps(v); }
KRAIT_INLINE IVec load_i8(const char* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
KRAIT_INLINE IVec load_u8(const char* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
#else
using IVec = __m256i;
typedef uint16_t Shorts __attribute__((vector_size(32)));
KRAIT_INLINE IVec load_i(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
KRAIT_INLINE void stream_i(void* p, IVec v) { _mm256_stream_si256(static_cast<__m256i*>(p), v); }
KRAIT_INLINE IVec zero_i() { return _mm256_setzero_si256(); }
KRAIT_INLINE IVec set1_i8(int v) { return _mm256_set1_epi8(static_cast<char>(v)); }
KRAIT_INLINE IVec set1_i16(int v) { return _mm256_set1_epi16(static_cast<int16_t>(v)); }
KRAIT_INLINE IVec set1_i32(int v) { return _mm256_set1_epi32(v); }
KRAIT_INLINE IVec bit_and(IVec a, IVec b) { return _mm256_and_si256(a, b); }
KRAIT_INLINE IVec bit_or(IVec a, IVec b) { return _mm256_or_si256(a, b); }
KRAIT_INLINE IVec bit_xor(IVec a, IVec b) { return _mm256_xor_si256(a, b); }
KRAIT_INLINE IVec masked_or(IVec a, IVec mask, IVec b) { return bit_or(bit_and(a, mask), b); }
KRAIT_INLINE IVec add_i16(IVec a, IVec b) { return _mm256_add_epi16(a, b); }
KRAIT_INLINE IVec add_i32(IVec a, IVec b) { return _mm256_add_epi32(a, b); }
KRAIT_INLINE IVec mul_u8_i8(IVec a, IVec b) { return _mm256_maddubs_epi16(a, b); }
KRAIT_INLINE IVec mul_i16(IVec a, IVec b) { return _mm256_madd_epi16(a, b); }
KRAIT_INLINE IVec look_up(const void* table16, IVec codes) {
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(table16))), codes);
}
KRAIT_INLINE Vec to_f32(IVec v) { return _mm256_cvtepi32_ps(v); }
KRAIT_INLINE IVec load_i8(const char* p) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
KRAIT_INLINE IVec load_u8(const char* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
#endif

// Each 16 bits moved right by n (left if negative); bits that cross a byte are for the caller to mask.
KRAIT_INLINE IVec shift_right(IVec v, int n) {
  return n >= 0 ? reinterpret_cast<IVec>(reinterpret_cast<Shorts>(v) >> n)
                : reinterpret_cast<IVec>(reinterpret_cast<Shorts>(v) << -n);
}

// Step j of the 32 k whose codes begin at p: one byte a code.
template <int kBits>
KRAIT_INLINE IVec unpack(const char* p, int j) {
  static_assert((kBits >= 2 && kBits <= 6) || kBits == 8);
  if constexpr (kBits == 8) {
    return load_i(p + 64 * j);
  } else if constexpr (kBits >= 4) {
    const IVec low = bit_and(shift_right(load_i(p + 64 * (j % 4)), j / 4 * 4), set1_i8(15));
    if constexpr (kBits == 5) return masked_or(shift_right(load_i(p + 256), j - 4), set1_i8(0x10), low);
    if constexpr (kBits == 6) {
      return masked_or(shift_right(load_i(p + 256 + 64 * (j % 2)), j / 2 * 2 - 4), set1_i8(0x30), low);
    }
    return low;
  } else {
    const IVec low = bit_and(shift_right(load_i(p + 64 * (j % 2)), j / 2 * 2), set1_i8(3));
    if constexpr (kBits == 3) return masked_or(shift_right(load_i(p + 128), j - 2), set1_i8(4), low);
    return low;
  }
}

}  // namespace krait::KRAIT_ISA
