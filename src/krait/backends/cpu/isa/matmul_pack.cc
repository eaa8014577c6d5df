#include "krait/backends/cpu/isa/matmul_pack.h"

#include <string.h>

#include "krait/backends/cpu/isa/int8_tile.h"
#include "krait/backends/cpu/isa/ops.h"

namespace krait::KRAIT_ISA {

void transpose(const char* src, int64_t ld_src, int64_t rows, int64_t cols, float* dst, int64_t ld_dst) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const char* s = src + r * ld_src;
    int64_t c = 0;
    for (; c + 4 <= cols; c += 4, s += 16) {
      __m128 v0 = _mm_loadu_ps(reinterpret_cast<const float*>(s));
      __m128 v1 = _mm_loadu_ps(reinterpret_cast<const float*>(s + ld_src));
      __m128 v2 = _mm_loadu_ps(reinterpret_cast<const float*>(s + 2 * ld_src));
      __m128 v3 = _mm_loadu_ps(reinterpret_cast<const float*>(s + 3 * ld_src));
      _MM_TRANSPOSE4_PS(v0, v1, v2, v3);
      float* d = dst + c * ld_dst + r;
      _mm_storeu_ps(d, v0);
      _mm_storeu_ps(d + ld_dst, v1);
      _mm_storeu_ps(d + 2 * ld_dst, v2);
      _mm_storeu_ps(d + 3 * ld_dst, v3);
    }
    for (; c < cols; ++c, s += 4) {
      for (int i = 0; i < 4; ++i) memcpy(dst + c * ld_dst + r + i, s + i * ld_src, 4);
    }
  }
  for (; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) memcpy(dst + c * ld_dst + r, src + r * ld_src + 4 * c, 4);
  }
}

namespace {

// To nearest even, as an f32 whose lower half is zero; NaN stays NaN.
#ifdef __AVX512F__
Vec round_to_bf16(Vec x) {
  const __m512i u = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __m512i r = _mm512_mask_or_epi32(up, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
  return odd_bf16(_mm512_castsi512_ps(r));
}
#else
Vec round_to_bf16(Vec x) {
  const __m256i u = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
  return odd_bf16(
      _mm256_blendv_ps(_mm256_castsi256_ps(up), _mm256_castsi256_ps(quiet), _mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}
#endif

constexpr int64_t kChunk = 128;  // elements of a row that are converted at a time

#ifdef __AVX512BF16__
// x = high + low + e, |e| <= 2^-17 |x|. A value that would round to infinity is cut instead; infinity and NaN have no
// low part, so that they pass through the products as they would in f32.
void split(Vec x, Vec& high, Vec& low) {
  const Vec infinity = set1(__builtin_inff()), rounded = round_to_bf16(x);
  high = select_less(abs(rounded), infinity, rounded, select_less(abs(x), infinity, odd_bf16(x), rounded));
  low = select_less(abs(x), infinity, round_to_bf16(sub(x, high)), zero());
}

// The upper halves of (a, b), 32 of them.
void store_halves(Vec a, Vec b, float* out) {
  static constexpr uint16_t kOdd[] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                      33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  const __m512i halves =
      _mm512_permutex2var_epi16(_mm512_castps_si512(a), _mm512_loadu_si512(kOdd), _mm512_castps_si512(b));
  store(out, _mm512_castsi512_ps(halves));
}

// 16 floats, of which `left` exist.
Vec load_left(const float* x, int64_t left) {
  return left >= kLanes ? load(x) : left <= 0 ? zero() : load(x, first_lanes(left));
}

// Elements [c0, c0 + n) of a converted row, `parts` runs of n elements.
void convert(XForm form, const float* x, int64_t K, int64_t c0, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t k = 2 * (c0 + i);
    const Vec a = load_left(x + k, K - k), b = load_left(x + k + kLanes, K - k - kLanes);
    if (form == XForm::kPairs) {
      store_halves(round_to_bf16(a), round_to_bf16(b), out + i);
    } else {
      Vec high_a, low_a, high_b, low_b;
      split(a, high_a, low_a);
      split(b, high_b, low_b);
      store_halves(high_a, high_b, out + i);
      store_halves(low_a, low_b, out + kChunk + i);
    }
  }
}
#else
// Elements [c0, c0 + n) of a row, rounded.
void convert(XForm, const float* x, int64_t, int64_t c0, int64_t n, float* out) {
  for_vectors(n, [&](int64_t i, auto lanes) { store(out + i, round_to_bf16(load(x + c0 + i, lanes)), lanes); });
}
#endif

// Whether no element is infinite or NaN: has all bits of the exponent.
bool all_finite(DType dtype, const char* src, int64_t n) {
  const bool wide = dtype == DType::kF32;
  const IVec exponent = wide ? set1_i32(0x7F800000) : set1_i16(dtype == DType::kBF16 ? 0x7F80 : 0x7C00);
  const IVec lowest = wide ? set1_i32(0x00800000) : set1_i16(dtype == DType::kBF16 ? 0x80 : 0x400);
  IVec carries = zero_i();  // into the sign, where the exponent is all ones
  const auto add = [&](IVec v) {
    const IVec e = bit_and(v, exponent);
    carries = bit_or(carries, wide ? add_i32(e, lowest) : add_i16(e, lowest));
  };
  constexpr auto kBytes = static_cast<int64_t>(sizeof(IVec));
  const int64_t bytes = n * size_of(dtype), whole = bytes / kBytes * kBytes;
  for (int64_t at = 0; at < whole; at += kBytes) add(load_i(src + at));
  char rest[kBytes] = {};
  memcpy(rest, src + whole, static_cast<size_t>(bytes - whole));
  add(load_i(rest));
  carries = bit_and(carries, wide ? set1_i32(INT32_MIN) : set1_i16(INT16_MIN));
  uint64_t words[kBytes / 8], any = 0;
  memcpy(words, &carries, sizeof(words));
  for (const uint64_t w : words) any |= w;
  return any == 0;
}

// 16 rows of a weight -> one panel.
void pack_panel(DType dtype, const char* src, int64_t rows, int64_t K, char* dst) {
  const int64_t pairs = K / 2;
  if (dtype == DType::kF32) {
    if (rows < kPanel) memset(dst, 0, static_cast<size_t>(K * kPanel * 4));
    transpose(src, 4 * K, rows, K, reinterpret_cast<float*>(dst), kPanel);
    return;
  }
  const int64_t bytes = (dtype == DType::kBF16 ? (K + 1) / 2 * 2 : K) * kPanel * 2;
  if (rows < kPanel || K % 2 != 0) memset(dst, 0, static_cast<size_t>(bytes));
  transpose(src, 2 * K, rows, pairs, reinterpret_cast<float*>(dst), kPanel);
  if (dtype == DType::kF16) {  // [K/2][16][2] -> [K/2][2][16]
    for (int64_t i = 0; i < pairs; ++i) {
      const __m256i lo = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(dst + 64 * i));
      const __m256i hi = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(dst + 64 * i + 32));
      const __m256i mask = _mm256_set1_epi32(0xFFFF);
      const __m256i even = _mm256_packus_epi32(_mm256_and_si256(lo, mask), _mm256_and_si256(hi, mask));
      const __m256i odd = _mm256_packus_epi32(_mm256_srli_epi32(lo, 16), _mm256_srli_epi32(hi, 16));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + 64 * i), _mm256_permute4x64_epi64(even, 0xD8));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + 64 * i + 32), _mm256_permute4x64_epi64(odd, 0xD8));
    }
  }
  if (K % 2 != 0) {
    char* last = dst + pairs * 64;
    const int64_t step = dtype == DType::kBF16 ? 4 : 2;
    for (int64_t r = 0; r < rows; ++r) memcpy(last + r * step, src + (r + 1) * 2 * K - 2, 2);
  }
}

int64_t panel_bytes(DType dtype, int64_t K) {
  return dtype == DType::kF32 ? 4 * kPanel * K : dtype == DType::kBF16 ? (K + 1) / 2 * 4 * kPanel : 2 * kPanel * K;
}

}  // namespace

void pack_x(XForm form, const float* x, int64_t ldx, int rows, int64_t K, int MR, float* panel) {
  const int64_t n = x_elements(form, K);
  if (rows < MR) memset(panel, 0, static_cast<size_t>(n * MR) * 4);
  if (form == XForm::kF32) {
    transpose(reinterpret_cast<const char*>(x), 4 * ldx, rows, K, panel, MR);
    return;
  }
  const int parts = form == XForm::kSplitPairs ? 2 : 1;
  const int64_t cols = n / parts;
  float buffer[kMaxRows][2 * kChunk];
  for (int64_t c0 = 0; c0 < cols; c0 += kChunk) {
    const int64_t c = cols - c0 < kChunk ? cols - c0 : kChunk;
    for (int r = 0; r < rows; ++r) convert(form, x + r * ldx, K, c0, c, buffer[r]);
    for (int part = 0; part < parts; ++part) {
      transpose(reinterpret_cast<const char*>(buffer[0] + part * kChunk), sizeof(buffer[0]), rows, c,
                panel + (c0 * parts + part) * MR, parts * MR);
    }
  }
}

size_t packed_weight_bytes(DType dtype, int64_t N, int64_t K) {
  if (is_block_type(dtype)) return int8_packed_bytes(dtype, N, K);
  return static_cast<size_t>((N + kPanel - 1) / kPanel * panel_bytes(dtype, K));
}

void pack_weight(const Exec& exec, const PackWeightParams& p) {
  if (is_block_type(p.dtype)) return int8_pack(exec, p);
  const int64_t bytes = panel_bytes(p.dtype, p.K), row = p.K * size_of(p.dtype);
  pack_panels(exec, p, bytes, [&](int64_t i, int64_t rows) {
    const char* src = static_cast<const char*>(p.src) + i * kPanel * row;
    pack_panel(p.dtype, src, rows, p.K, static_cast<char*>(p.dst) + i * bytes);
    return all_finite(p.dtype, src, rows * p.K);
  });
}

}  // namespace krait::KRAIT_ISA
