// Activations of the integer matmul: x -> dx·q by row and 32 columns, in panels of MR rows (int8_format.h).
#include <string.h>

#include "krait/backends/cpu/isa/int8_tile.h"

namespace krait::KRAIT_ISA {
namespace {

constexpr float kSmallestQuantized = 0x1p-118f;  // kernels/reference/block_matmul.h

// 32 columns of a row. sums: Σq of the two halves.
struct Quantized {
  float dx;
  int32_t sums[2];
  alignas(32) int8_t q[32];
};

// 32 floats as vectors.
constexpr int kVectors = 32 / kLanes;

#ifdef __AVX512F__
uint32_t largest_bits(const Vec (&x)[kVectors]) {
  const __m512i mask = _mm512_set1_epi32(0x7FFFFFFF);
  return static_cast<uint32_t>(_mm512_reduce_max_epi32(_mm512_max_epi32(
      _mm512_and_si512(_mm512_castps_si512(x[0]), mask), _mm512_and_si512(_mm512_castps_si512(x[1]), mask))));
}
__m256i round_to_i8(const Vec (&x)[kVectors], Vec inverse) {
  const __m128i a = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(mul(x[0], inverse)));
  const __m128i b = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(mul(x[1], inverse)));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}
#else
uint32_t largest_bits(const Vec (&x)[kVectors]) {
  const __m256i mask = _mm256_set1_epi32(0x7FFFFFFF);
  __m256i m = _mm256_setzero_si256();
  for (const Vec& v : x) m = _mm256_max_epi32(m, _mm256_and_si256(_mm256_castps_si256(v), mask));
  __m128i h = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
  h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0x4E));
  h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0xB1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(h));
}
__m256i round_to_i8(const Vec (&x)[kVectors], Vec inverse) {
  __m256i q[kVectors];
  for (int i = 0; i < kVectors; ++i) q[i] = _mm256_cvtps_epi32(mul(x[i], inverse));
  const __m256i mixed = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
  return _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));  // packs work by 128 bits
}
#endif

KRAIT_INLINE void quantize(const float* x, Quantized& out) {
  Vec v[kVectors];
  for (int i = 0; i < kVectors; ++i) v[i] = load(x + i * kLanes);
  const uint32_t bits = largest_bits(v);
  float largest;
  memcpy(&largest, &bits, 4);
  float inverse = 0.0f;
  if (bits >= 0x7F800000u) {
    out.dx = __builtin_nanf("");
    for (Vec& u : v) u = zero();
  } else if (largest < kSmallestQuantized) {
    out.dx = 0.0f;
  } else {
    out.dx = largest / 127.0f;
    inverse = 127.0f / largest;
  }
  const __m256i q = round_to_i8(v, set1(inverse));
  _mm256_store_si256(reinterpret_cast<__m256i*>(out.q), q);
  const __m256i fours = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), q), _mm256_set1_epi16(1));
  const __m256i eights = _mm256_add_epi32(fours, _mm256_shuffle_epi32(fours, 0x4E));
  const __m256i halves = _mm256_add_epi32(eights, _mm256_shuffle_epi32(eights, 0xB1));
  out.sums[0] = _mm256_cvtsi256_si32(halves);
  out.sums[1] = _mm_cvtsi128_si32(_mm256_extracti128_si256(halves, 1));
}

}  // namespace

void quantize_row(const Format& f, const float* x, int64_t K, int MR, int r, char* panel) {
  Quantized a{};
  const int groups = f.groups();
  for (int64_t k = 0; k < K; k += 32) {
    if (x != nullptr) quantize(x + k, a);
    if (MR == 1) {
      memcpy(panel, a.q, 32);
    } else {
      for (int j = 0; j < 8; ++j) memcpy(panel + 4 * (j * MR + r), a.q + 4 * j, 4);
    }
    memcpy(panel + 32 * MR + 4 * r, &a.dx, 4);
    char* p = panel + 36 * MR + 4 * r;
    const int32_t sums[2] = {groups == 1 ? a.sums[0] + a.sums[1] : a.sums[0], a.sums[1]};
    if (f.centre != 0) {
      for (int h = 0; h < groups; ++h, p += 4 * MR) {
        const int32_t start = -f.centre * sums[h];
        memcpy(p, &start, 4);
      }
    }
    if (f.offsets()) {
      for (int h = 0; h < groups; ++h, p += 4 * MR) {
        const float sum = a.dx * static_cast<float>(sums[h]);
        memcpy(p, &sum, 4);
      }
    }
    panel += f.x_bytes() * MR;
  }
}

}  // namespace krait::KRAIT_ISA
