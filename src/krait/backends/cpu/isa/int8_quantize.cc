// Activations of the integer matmul: x -> dx·q by row and 32 columns, in panels of MR rows (int8_format.h).
#include <string.h>

#include "krait/backends/cpu/isa/int8_tile.h"

namespace krait::KRAIT_ISA {
namespace {

constexpr float kSmallestQuantized = 0x1p-118f;  // kernels/reference/block_matmul.h
constexpr int kRun = 8;                          // runs of 32 columns quantized together: a lane each

// A row's share of a panel is a column of 4-byte words: the 8 steps of q, then dx and what the format adds.
struct alignas(32) Quantized {
  int8_t q[kRun][32];
  int32_t rest[5][kRun];
};

constexpr int kVectors = 32 / kLanes;  // of 32 floats

#ifdef __AVX512F__
// Bits of |x|, the largest of lanes 8 apart.
KRAIT_INLINE __m256i largest_bits(const float* x) {
  const __m512i mask = _mm512_set1_epi32(0x7FFFFFFF);
  const __m512i m = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(load(x)), mask),
                                     _mm512_and_si512(_mm512_castps_si512(load(x + kLanes)), mask));
  return _mm256_max_epi32(_mm512_castsi512_si256(m), _mm512_extracti64x4_epi64(m, 1));
}
KRAIT_INLINE __m256i round_to_i8(const float* x, Vec inverse) {
  const __m128i a = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(mul(load(x), inverse)));
  const __m128i b = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(mul(load(x + kLanes), inverse)));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}
#else
KRAIT_INLINE __m256i largest_bits(const float* x) {
  __m256i m = _mm256_setzero_si256();
  KRAIT_UNROLL for (int i = 0; i < kVectors; ++i) {
    const __m256i bits = _mm256_castps_si256(load(x + i * kLanes));
    m = _mm256_max_epi32(m, _mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF)));
  }
  return m;
}
KRAIT_INLINE __m256i round_to_i8(const float* x, Vec inverse) {
  __m256i q[kVectors];
  KRAIT_UNROLL for (int i = 0; i < kVectors; ++i) q[i] = _mm256_cvtps_epi32(mul(load(x + i * kLanes), inverse));
  const __m256i mixed = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
  return _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));  // packs work by 128 bits
}
#endif

// Folds the four lanes of each half of v[0..7] by `f`: element i of `low` is that of the lower half of v[i].
template <class F>
KRAIT_INLINE void fold_8(const __m256i (&v)[kRun], F f, __m256i& low, __m256i& high) {
  __m256i pairs[4], fours[2];
  KRAIT_UNROLL for (int i = 0; i < 4; ++i) {
    pairs[i] = f(_mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]), _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
  }
  KRAIT_UNROLL for (int i = 0; i < 2; ++i) {
    fours[i] =
        f(_mm256_unpacklo_epi64(pairs[2 * i], pairs[2 * i + 1]), _mm256_unpackhi_epi64(pairs[2 * i], pairs[2 * i + 1]));
  }
  low = _mm256_permute2x128_si256(fours[0], fours[1], 0x20);
  high = _mm256_permute2x128_si256(fours[0], fours[1], 0x31);
}

// dx and 127/largest of 8 runs from the bits of their largest magnitudes.
KRAIT_INLINE void scales(__m256i bits, __m256& dx, __m256& inverse) {
  const __m256 largest = _mm256_castsi256_ps(bits), steps = _mm256_set1_ps(127.0f);
  const __m256i not_finite = _mm256_cmpgt_epi32(bits, _mm256_set1_epi32(0x7F7FFFFF));
  const __m256 counts = _mm256_cmp_ps(largest, _mm256_set1_ps(kSmallestQuantized), _CMP_GE_OQ);
  dx = _mm256_and_ps(_mm256_div_ps(largest, steps), counts);
  dx = _mm256_or_ps(dx, _mm256_castsi256_ps(not_finite));  // all ones: NaN
  inverse = _mm256_and_ps(_mm256_div_ps(steps, largest), counts);
}

// x [32·kRun]. Returns the number of words of `rest`.
KRAIT_INLINE int quantize(const Format& f, const float* x, Quantized& out) {
  __m256i v[kRun], low, high;
  KRAIT_UNROLL for (int i = 0; i < kRun; ++i) v[i] = largest_bits(x + 32 * i);
  const auto larger = [](__m256i a, __m256i b) { return _mm256_max_epi32(a, b); };
  fold_8(v, larger, low, high);
  __m256 dx, inverse;
  scales(larger(low, high), dx, inverse);
  alignas(32) float inverses[kRun];
  _mm256_store_ps(inverses, inverse);
  KRAIT_UNROLL for (int i = 0; i < kRun; ++i) {
    const __m256i q = round_to_i8(x + 32 * i, set1(inverses[i]));
    _mm256_store_si256(reinterpret_cast<__m256i*>(out.q[i]), q);
    v[i] = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), q), _mm256_set1_epi16(1));
  }
  fold_8(v, [](__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }, low, high);
  const __m256i sums[2] = {f.groups() == 1 ? _mm256_add_epi32(low, high) : low, high};
  auto* word = reinterpret_cast<__m256i*>(out.rest);
  _mm256_store_si256(word++, _mm256_castps_si256(dx));
  if (f.centre != 0) {
    for (int h = 0; h < f.groups(); ++h) {
      _mm256_store_si256(word++, _mm256_mullo_epi32(sums[h], _mm256_set1_epi32(-f.centre)));
    }
  }
  if (f.offsets()) {
    for (int h = 0; h < f.groups(); ++h) {
      _mm256_store_si256(word++, _mm256_castps_si256(_mm256_mul_ps(dx, _mm256_cvtepi32_ps(sums[h]))));
    }
  }
  return static_cast<int>(word - reinterpret_cast<__m256i*>(out.rest));
}

template <int MR>
void quantize_into(const Format& f, const float* x, int64_t K, int32_t* panel) {
  constexpr int64_t kColumns = 32 * kRun;
  const int64_t words = f.x_bytes() / 4;
  Quantized a{};
  int rest = static_cast<int>(words) - 8;
  for (int64_t k = 0; k < K; k += kColumns) {
    const int64_t left = K - k < kColumns ? K - k : kColumns;
    if (x != nullptr && left == kColumns) {
      rest = quantize(f, x + k, a);
    } else if (x != nullptr) {
      float tail[kColumns] = {};
      memcpy(tail, x + k, static_cast<size_t>(left) * 4);
      rest = quantize(f, tail, a);
    }
    for (int i = 0; i < left / 32; ++i, panel += words * MR) {
      KRAIT_UNROLL for (int j = 0; j < 8; ++j) memcpy(panel + j * MR, a.q[i] + 4 * j, 4);
      for (int e = 0; e < rest; ++e) panel[(8 + e) * MR] = a.rest[e][i];
    }
  }
}

}  // namespace

void quantize_row(const Format& f, const float* x, int64_t K, int MR, int r, char* panel) {
  auto* first = reinterpret_cast<int32_t*>(panel) + r;
  switch (MR) {
    case 1:
      return quantize_into<1>(f, x, K, first);
    case 2:
      return quantize_into<2>(f, x, K, first);
    case 4:
      return quantize_into<4>(f, x, K, first);
    default:
      return quantize_into<kInt8MaxRows>(f, x, K, first);
  }
}

}  // namespace krait::KRAIT_ISA
