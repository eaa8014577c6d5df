// Angles as 32-bit fixed point, 2^32 = one turn: steps that wrap, sine and cosine.
#pragma once
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {

#ifdef __AVX512F__
using Phase = __m512i;
KRAIT_INLINE Phase load_phase(const int32_t* p, Whole) { return _mm512_loadu_si512(p); }
KRAIT_INLINE Phase load_phase(const int32_t* p, Part lanes) { return _mm512_maskz_loadu_epi32(lanes.mask, p); }
KRAIT_INLINE void store_phase(int32_t* p, Phase v, Whole) { _mm512_storeu_si512(p, v); }
KRAIT_INLINE void store_phase(int32_t* p, Phase v, Part lanes) { _mm512_mask_storeu_epi32(p, lanes.mask, v); }
KRAIT_INLINE Phase add(Phase a, Phase b) { return _mm512_add_epi32(a, b); }
KRAIT_INLINE Phase sub(Phase a, Phase b) { return _mm512_sub_epi32(a, b); }
KRAIT_INLINE Phase whole(int32_t v) { return _mm512_set1_epi32(v); }
KRAIT_INLINE Phase to_phase(Vec v) { return _mm512_cvtps_epi32(v); }
KRAIT_INLINE Vec to_vec(Phase v) { return _mm512_cvtepi32_ps(v); }
template <int n>
KRAIT_INLINE Phase shift_left(Phase v) {
  return _mm512_slli_epi32(v, n);
}
template <int n>
KRAIT_INLINE Phase shift_right(Phase v) {  // arithmetic
  return _mm512_srai_epi32(v, n);
}
KRAIT_INLINE Vec as_vec(Phase v) { return _mm512_castsi512_ps(v); }
KRAIT_INLINE Vec bit_xor(Vec a, Vec b) { return _mm512_xor_ps(a, b); }
// The lowest bit of `odd` set ? a : b
KRAIT_INLINE Vec select_odd(Phase odd, Vec a, Vec b) {
  return _mm512_mask_blend_ps(_mm512_test_epi32_mask(odd, whole(1)), b, a);
}
// Lanes (0 0 1 1 …) of the lower (half = 0) or upper (1) half of v.
template <int half>
KRAIT_INLINE Vec twice(Vec v) {
  const Phase at = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return _mm512_permutexvar_ps(add(at, whole(8 * half)), v);
}
KRAIT_INLINE Vec swap_pairs(Vec v) { return _mm512_permute_ps(v, 0xB1); }
// −0 in even lanes, +0 in odd ones
KRAIT_INLINE Vec even_signs() { return _mm512_castsi512_ps(_mm512_set1_epi64(0x80000000)); }

#else
using Phase = __m256i;
KRAIT_INLINE Phase load_phase(const int32_t* p, Whole) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
KRAIT_INLINE Phase load_phase(const int32_t* p, Part lanes) { return _mm256_maskload_epi32(p, lanes.mask); }
KRAIT_INLINE void store_phase(int32_t* p, Phase v, Whole) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
KRAIT_INLINE void store_phase(int32_t* p, Phase v, Part lanes) { _mm256_maskstore_epi32(p, lanes.mask, v); }
KRAIT_INLINE Phase add(Phase a, Phase b) { return _mm256_add_epi32(a, b); }
KRAIT_INLINE Phase sub(Phase a, Phase b) { return _mm256_sub_epi32(a, b); }
KRAIT_INLINE Phase whole(int32_t v) { return _mm256_set1_epi32(v); }
KRAIT_INLINE Phase to_phase(Vec v) { return _mm256_cvtps_epi32(v); }
KRAIT_INLINE Vec to_vec(Phase v) { return _mm256_cvtepi32_ps(v); }
template <int n>
KRAIT_INLINE Phase shift_left(Phase v) {
  return _mm256_slli_epi32(v, n);
}
template <int n>
KRAIT_INLINE Phase shift_right(Phase v) {  // arithmetic
  return _mm256_srai_epi32(v, n);
}
KRAIT_INLINE Vec as_vec(Phase v) { return _mm256_castsi256_ps(v); }
KRAIT_INLINE Vec bit_xor(Vec a, Vec b) { return _mm256_xor_ps(a, b); }
// The lowest bit of `odd` set ? a : b
KRAIT_INLINE Vec select_odd(Phase odd, Vec a, Vec b) { return _mm256_blendv_ps(b, a, as_vec(shift_left<31>(odd))); }
// Lanes (0 0 1 1 …) of the lower (half = 0) or upper (1) half of v.
template <int half>
KRAIT_INLINE Vec twice(Vec v) {
  const Phase at = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
  return _mm256_permutevar8x32_ps(v, add(at, whole(4 * half)));
}
KRAIT_INLINE Vec swap_pairs(Vec v) { return _mm256_permute_ps(v, 0xB1); }
// −0 in even lanes, +0 in odd ones
KRAIT_INLINE Vec even_signs() { return _mm256_castsi256_ps(_mm256_set1_epi64x(0x80000000)); }
#endif

// `turns` as a phase, rounded to 2^-32 turn; whole turns fall away. The remainder is exact and at most half a turn:
// +half does not fit 32 bits, and the conversion then answers −half, which is the same angle.
KRAIT_INLINE Phase phase_of_turns(Vec turns) { return to_phase(mul(sub(turns, round(turns)), set1(0x1p32f))); }

struct SinCos {
  Vec sin, cos;
};

// Error below 1.5 ulp; exact at multiples of a quarter turn. The integer is cut into the nearest quarter turn and a
// rest y of at most half a quarter, exactly. sin(π/2·y) = y·(high + (low + y²·p(y²))) with high + low = π/2, and
// cos(π/2·y) = 1 + y²·q(y²); p, q minimax (4e-9 and 1e-10 relative).
KRAIT_INLINE SinCos sincos(Phase phase) {
  static constexpr float kSin[] = {-0x1.777a5dp-25f, -6.459636431e-01f, 7.968157906e-02f, -4.605309840e-03f};
  static constexpr float kCos[] = {-1.233700543e+00f, 2.536692440e-01f, -2.086028851e-02f, 9.040216722e-04f};
  const Phase quarter = shift_right<30>(add(phase, whole(1 << 29)));
  const Vec y = mul(to_vec(sub(phase, shift_left<30>(quarter))), set1(0x1p-30f));
  const Vec z = mul(y, y);
  const Vec s = fma(y, set1(0x1.921fb6p+0f), mul(y, polynomial(z, kSin)));
  const Vec c = fma(z, polynomial(z, kCos), set1(1.0f));
  const Vec sin_sign = sign_bit(as_vec(shift_left<30>(quarter)));
  const Vec cos_sign = sign_bit(as_vec(shift_left<30>(add(quarter, whole(1)))));
  return {bit_xor(select_odd(quarter, c, s), sin_sign), bit_xor(select_odd(quarter, s, c), cos_sign)};
}

}  // namespace krait::KRAIT_ISA
