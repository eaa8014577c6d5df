// The f32 vector of one instruction set: loads and stores of whole and partial vectors, arithmetic, and the functions
// the models use (exp, softplus, sigmoid, silu, tanh). A lane's result depends on that lane's inputs only, so whether
// an element sits in a whole vector or in a tail never shows (exactness contract).
#pragma once
#include <immintrin.h>
#include <stdint.h>

namespace krait::KRAIT_ISA {

#define KRAIT_UNROLL _Pragma("GCC unroll 16")
#define KRAIT_INLINE [[gnu::always_inline]] static inline

// Which lanes of a vector exist in memory: all, or the first few. Missing lanes load as zero and are not stored.
struct Whole {};

#ifdef __AVX512F__
using Vec = __m512;
constexpr int kLanes = 16;

struct Part {
  __mmask16 mask;
};
KRAIT_INLINE Part first_lanes(int64_t n) { return {static_cast<__mmask16>((1u << n) - 1)}; }  // 1 <= n < kLanes

KRAIT_INLINE Vec zero() { return _mm512_setzero_ps(); }
KRAIT_INLINE Vec set1(float x) { return _mm512_set1_ps(x); }
KRAIT_INLINE Vec broadcast(const float* p) { return _mm512_set1_ps(*p); }
KRAIT_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
KRAIT_INLINE Vec load(const float* p, Part lanes) { return _mm512_maskz_loadu_ps(lanes.mask, p); }
KRAIT_INLINE Vec load_f16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
KRAIT_INLINE Vec load_bf16(const uint16_t* p) {
  const __m512i half = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(half, 16));
}
KRAIT_INLINE void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
KRAIT_INLINE void store(float* p, Vec v, Part lanes) { _mm512_mask_storeu_ps(p, lanes.mask, v); }
// Lanes that do not exist become zero: before a sum over lanes.
KRAIT_INLINE Vec keep(Vec v, Part lanes) { return _mm512_maskz_mov_ps(lanes.mask, v); }

KRAIT_INLINE Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
KRAIT_INLINE Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
KRAIT_INLINE Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
KRAIT_INLINE Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
KRAIT_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }    // a·b + c
KRAIT_INLINE Vec fnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }  // c − a·b
KRAIT_INLINE Vec sqrt(Vec a) { return _mm512_sqrt_ps(a); }
// If either is NaN: the second argument.
KRAIT_INLINE Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
KRAIT_INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
KRAIT_INLINE Vec round(Vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
KRAIT_INLINE Vec bit_and(Vec a, Vec b) { return _mm512_and_ps(a, b); }
KRAIT_INLINE Vec bit_or(Vec a, Vec b) { return _mm512_or_ps(a, b); }
// a < b ? x : y
KRAIT_INLINE Vec select_less(Vec a, Vec b, Vec x, Vec y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
// a·2^n for whole n, |n| <= 252, 2^-1 <= |a| <= 2, rounded once.
KRAIT_INLINE Vec scale(Vec a, Vec n) { return _mm512_scalef_ps(a, n); }
KRAIT_INLINE __m256 fold(Vec v) { return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)); }

#else
using Vec = __m256;
constexpr int kLanes = 8;

struct Part {
  __m256i mask;
};
KRAIT_INLINE Part first_lanes(int64_t n) {  // 1 <= n < kLanes
  return {_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))};
}

KRAIT_INLINE Vec zero() { return _mm256_setzero_ps(); }
KRAIT_INLINE Vec set1(float x) { return _mm256_set1_ps(x); }
KRAIT_INLINE Vec broadcast(const float* p) { return _mm256_broadcast_ss(p); }
KRAIT_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
KRAIT_INLINE Vec load(const float* p, Part lanes) { return _mm256_maskload_ps(p, lanes.mask); }
KRAIT_INLINE Vec load_f16(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
KRAIT_INLINE Vec load_bf16(const uint16_t* p) {
  const __m256i half = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(half, 16));
}
KRAIT_INLINE void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
KRAIT_INLINE void store(float* p, Vec v, Part lanes) { _mm256_maskstore_ps(p, lanes.mask, v); }
// Lanes that do not exist become zero: before a sum over lanes.
KRAIT_INLINE Vec keep(Vec v, Part lanes) { return _mm256_and_ps(v, _mm256_castsi256_ps(lanes.mask)); }

KRAIT_INLINE Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
KRAIT_INLINE Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
KRAIT_INLINE Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
KRAIT_INLINE Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
KRAIT_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }    // a·b + c
KRAIT_INLINE Vec fnma(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }  // c − a·b
KRAIT_INLINE Vec sqrt(Vec a) { return _mm256_sqrt_ps(a); }
// If either is NaN: the second argument.
KRAIT_INLINE Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
KRAIT_INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
KRAIT_INLINE Vec round(Vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
KRAIT_INLINE Vec bit_and(Vec a, Vec b) { return _mm256_and_ps(a, b); }
KRAIT_INLINE Vec bit_or(Vec a, Vec b) { return _mm256_or_ps(a, b); }
// a < b ? x : y
KRAIT_INLINE Vec select_less(Vec a, Vec b, Vec x, Vec y) {
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
KRAIT_INLINE Vec power_of_2(__m256i n) {  // −126 <= n <= 127
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
// a·2^n for whole n, |n| <= 252, 2^-1 <= |a| <= 2, rounded once: in two steps, the first of which is exact.
KRAIT_INLINE Vec scale(Vec a, Vec n) {
  const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
  return mul(mul(a, power_of_2(half)), power_of_2(_mm256_sub_epi32(whole, half)));
}
KRAIT_INLINE __m256 fold(Vec v) { return v; }
#endif

KRAIT_INLINE Vec load(const float* p, Whole) { return load(p); }
KRAIT_INLINE void store(float* p, Vec v, Whole) { store(p, v); }
KRAIT_INLINE Vec keep(Vec v, Whole) { return v; }

// f(i, lanes) for the vectors that cover 0 .. n−1.
template <class F>
KRAIT_INLINE void for_vectors(int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, Whole{});
  if (i < n) f(i, first_lanes(n - i));
}

// Sum over the lanes: halves are added until one lane is left.
KRAIT_INLINE float sum(Vec v) {
  const __m256 a = fold(v);
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

KRAIT_INLINE Vec abs(Vec x) { return max(x, sub(zero(), x)); }
KRAIT_INLINE Vec sign_bit(Vec x) { return bit_and(x, set1(-0.0f)); }

// Horner: c[0] + c[1]·x + … .
template <int n>
KRAIT_INLINE Vec polynomial(Vec x, const float (&c)[n]) {
  Vec s = set1(c[n - 1]);
  KRAIT_UNROLL for (int i = n - 2; i >= 0; --i) s = fma(s, x, set1(c[i]));
  return s;
}

// e^x, error below 1 ulp. x = n·ln 2 + r with |r| <= ln 2 / 2, n·ln 2 subtracted in two parts, the first of which has
// few enough bits that n times it is exact; e^r = 1 + r + r²·q(r), q minimax (3e-9 relative), then times 2^n.
// The bounds are where the result is infinity and zero; they also turn ±infinity finite, and NaN passes both.
KRAIT_INLINE Vec exp(Vec x) {
  static constexpr float kQ[] = {4.999999404e-01f, 1.666652113e-01f, 4.166838899e-02f, 8.368716575e-03f,
                                 1.381459995e-03f};
  x = max(set1(-104.0f), min(set1(89.0f), x));
  const Vec n = round(mul(x, set1(1.44269504f)));
  Vec r = fnma(n, set1(0x1.62e4p-1f), x);
  r = fnma(n, set1(0x1.7f7d1cp-20f), r);
  const Vec q = fma(mul(r, r), polynomial(r, kQ), r);
  return scale(add(q, set1(1.0f)), n);
}

// 2^x for finite x, error below 1.2 ulp: the decays of a scan, as fast as can be.
// x = n + r with n a multiple of 1/lanes that the sum x + 1.5·2^23/lanes leaves in its low bits: 2^n's fraction is
// looked up in a vector, 2^r = 1 + r·q(r), q minimax (1.6e-9 relative with 16 lanes, 2.5e-8 with 8). Without an
// instruction that multiplies by 2^n, its whole part is added to the exponent of the looked-up number, which was
// lessened by what the low bits add; then results end at 2^-125, where a decay leaves nothing, and 2^127.
#ifdef __AVX512F__
alignas(64) static constexpr float kRoots[] = {  // 2^(i/16)
    0x1p0f,        0x1.0b5586p0f, 0x1.172b84p0f, 0x1.2387a6p0f, 0x1.306fep0f,  0x1.3dea64p0f,
    0x1.4bfdaep0f, 0x1.5ab07ep0f, 0x1.6a09e6p0f, 0x1.7a1148p0f, 0x1.8ace54p0f, 0x1.9c4918p0f,
    0x1.ae89fap0f, 0x1.c199bep0f, 0x1.d5818ep0f, 0x1.ea4afap0f};
KRAIT_INLINE Vec exp2(Vec x) {
  static constexpr float kQ[] = {6.931471825e-01f, 2.402342856e-01f, 5.550213531e-02f};
  const Vec magic = set1(0x1.8p19f), shifted = add(x, magic), n = sub(shifted, magic), r = sub(x, n);
  const Vec root = _mm512_permutexvar_ps(_mm512_castps_si512(shifted), load(kRoots));
  return scale(fma(mul(root, r), polynomial(r, kQ), root), n);
}
#else
alignas(32) static constexpr int32_t kRoots[] = {  // the bits of 2^(i/8), less i·2^20
    0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7, 0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};
KRAIT_INLINE Vec exp2(Vec x) {
  static constexpr float kQ[] = {6.931472421e-01f, 2.402576357e-01f, 5.549622327e-02f};
  x = max(set1(-125.0f), min(set1(127.0f), x));
  const Vec magic = set1(0x1.8p20f), shifted = add(x, magic), n = sub(shifted, magic), r = sub(x, n);
  const __m256i bits = _mm256_castps_si256(shifted);
  const __m256i fraction =
      _mm256_permutevar8x32_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(kRoots)), bits);
  const Vec root = _mm256_castsi256_ps(_mm256_add_epi32(fraction, _mm256_slli_epi32(bits, 20)));
  return fma(mul(root, r), polynomial(r, kQ), root);
}
#endif

// log(1 + t) for 0 <= t <= 1, error below 1.5 ulp: with s = t / (2 + t),
// log(1 + t) = 2·atanh(s) = t − (t²/2 − s·(t²/2 + R)), R = s²·(2/3 + 2/5·s² + …) minimax (5e-9 relative).
KRAIT_INLINE Vec log1p_unit(Vec t) {
  static constexpr float kR[] = {6.666641831e-01f, 4.002152681e-01f, 2.800180614e-01f, 2.801198661e-01f};
  const Vec s = div(t, add(t, set1(2.0f)));
  const Vec z = mul(s, s);
  const Vec half = mul(mul(t, set1(0.5f)), t);
  const Vec R = mul(z, polynomial(z, kR));
  return sub(t, fnma(s, add(half, R), half));
}

// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|): no overflow, and e^x for very negative x. Error below 2.5 ulp.
KRAIT_INLINE Vec softplus(Vec x) { return add(max(zero(), x), log1p_unit(exp(sub(zero(), abs(x))))); }

// 1 / (1 + e^-x). Error below 2.5 ulp; below −88.7, where e^-x overflows, zero.
KRAIT_INLINE Vec sigmoid(Vec x) { return div(set1(1.0f), add(set1(1.0f), exp(sub(zero(), x)))); }

// x / (1 + e^-x). Error below 2.5 ulp; below −88.7 zero.
KRAIT_INLINE Vec silu(Vec x) { return div(x, add(set1(1.0f), exp(sub(zero(), x)))); }

// d silu / dx from s = sigmoid(x).
KRAIT_INLINE Vec silu_slope(Vec x, Vec s) { return mul(s, fma(x, sub(set1(1.0f), s), set1(1.0f))); }

// Error below 2.5 ulp: x + x³·q(x²) below 0.625 (q minimax, 4e-9 relative), above (1 − t) / (1 + t) with t = e^-2|x|.
KRAIT_INLINE Vec tanh(Vec x) {
  static constexpr float kQ[] = {-3.333328068e-01f, 1.333144158e-01f, -5.373971537e-02f, 2.063908800e-02f,
                                 -5.704987328e-03f};
  const Vec a = abs(x), z = mul(x, x);
  const Vec small = fma(mul(x, z), polynomial(z, kQ), x);
  const Vec t = exp(mul(a, set1(-2.0f)));
  const Vec large = div(sub(set1(1.0f), t), add(set1(1.0f), t));
  return select_less(a, set1(0.625f), small, bit_or(large, sign_bit(x)));
}

// Correctly rounded steps, not the approximate instruction: the bits must not depend on the CPU's maker.
KRAIT_INLINE Vec rsqrt(Vec x) { return div(set1(1.0f), sqrt(x)); }

}  // namespace krait::KRAIT_ISA
