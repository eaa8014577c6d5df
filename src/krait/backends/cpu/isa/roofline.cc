// Register-resident arithmetic, and plain streams: the limits of one core with these instructions.
#include "krait/backends/cpu/isa/roofline.h"

#include <immintrin.h>

namespace krait::KRAIT_ISA {
const RooflineLoops& roofline_loops();
namespace {

constexpr int kChains = 12;  // independent sums: more than latency times instructions a cycle
#define KRAIT_CHAINS _Pragma("GCC unroll 16") for (int i = 0; i < kChains; ++i)

#ifdef __AVX512F__
constexpr int kLanes = 16;
using F = __m512;
using I = __m512i;
inline F set_f(float v) { return _mm512_set1_ps(v); }
inline F fma_f(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F load_f(const float* p) { return _mm512_load_ps(p); }
inline F or_f(F a, F b) { return _mm512_or_ps(a, b); }
inline void stream_f(float* p, F v) { _mm512_stream_ps(p, v); }
inline I set_i(int v) { return _mm512_set1_epi32(v); }
inline float first(F v) { return _mm512_cvtss_f32(v); }
inline F as_f(I v) { return _mm512_castsi512_ps(v); }
#ifdef __AVX512VNNI__
inline I dot_i8(I sum, I a, I b) { return _mm512_dpbusd_epi32(sum, a, b); }
#else
inline I dot_i8(I sum, I a, I b) {
  return _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1)));
}
#endif
#else
constexpr int kLanes = 8;
using F = __m256;
using I = __m256i;
inline F set_f(float v) { return _mm256_set1_ps(v); }
inline F fma_f(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F load_f(const float* p) { return _mm256_load_ps(p); }
inline F or_f(F a, F b) { return _mm256_or_ps(a, b); }
inline void stream_f(float* p, F v) { _mm256_stream_ps(p, v); }
inline I set_i(int v) { return _mm256_set1_epi32(v); }
inline float first(F v) { return _mm256_cvtss_f32(v); }
inline F as_f(I v) { return _mm256_castsi256_ps(v); }
inline I dot_i8(I sum, I a, I b) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
#endif

// The compiler must take v for changed: it can neither hoist nor fold what is computed from it.
template <class V>
[[gnu::always_inline]] inline void opaque(V& v) {
  asm volatile("" : "+v"(v));
}

float f32(int64_t rounds) {
  F sum[kChains];
  F a = set_f(0.5f), b = set_f(1.0f);
  KRAIT_CHAINS sum[i] = set_f(static_cast<float>(i));
  opaque(a);
  opaque(b);
  for (int64_t r = 0; r < rounds; ++r) KRAIT_CHAINS sum[i] = fma_f(sum[i], a, b);
  F all = sum[0];
  KRAIT_CHAINS all = or_f(all, sum[i]);
  return first(all);
}

#ifdef __AVX512BF16__
float bf16(int64_t rounds) {
  F sum[kChains];
  F a = as_f(set_i(0x3F003F00));  // pairs of 0.5
  opaque(a);
  KRAIT_CHAINS sum[i] = set_f(static_cast<float>(i));
  for (int64_t r = 0; r < rounds; ++r) {
    KRAIT_CHAINS sum[i] = _mm512_dpbf16_ps(sum[i], reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(a));
  }
  F all = sum[0];
  KRAIT_CHAINS all = or_f(all, sum[i]);
  return first(all);
}
#endif

float int8(int64_t rounds) {
  I sum[kChains];
  KRAIT_CHAINS sum[i] = set_i(i);
  for (int64_t r = 0; r < rounds; ++r) {
    KRAIT_CHAINS {
      I a = set_i(0x01010101);
      opaque(a);
      sum[i] = dot_i8(sum[i], a, a);
    }
  }
  F all = as_f(sum[0]);
  KRAIT_CHAINS all = or_f(all, as_f(sum[i]));
  return first(all);
}

float read(const float* x, int64_t n) {
  F sum[8];
  for (F& s : sum) s = set_f(0.0f);
  for (int64_t at = 0; at < n; at += 8 * kLanes) {
    _Pragma("GCC unroll 8") for (int i = 0; i < 8; ++i) sum[i] = or_f(sum[i], load_f(x + at + i * kLanes));
  }
  F all = sum[0];
  for (const F& s : sum) all = or_f(all, s);
  return first(all);
}

void copy(float* dst, const float* src, int64_t n) {
  for (int64_t at = 0; at < n; at += 4 * kLanes) {
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) stream_f(dst + at + i * kLanes, load_f(src + at + i * kLanes));
  }
  _mm_sfence();
}

}  // namespace

const RooflineLoops& roofline_loops() {
#ifdef __AVX512BF16__
  constexpr auto kBf16 = bf16;
#else
  constexpr float (*kBf16)(int64_t) = nullptr;
#endif
  static constexpr RooflineLoops kLoops{
      f32, kBf16, int8, kChains * kLanes * 2, kChains * kLanes * 4, kChains * kLanes * 8, read, copy};
  return kLoops;
}

}  // namespace krait::KRAIT_ISA
