#include "krait/backends/cpu/isa/matmul_pack.h"

#include <string.h>

#include "krait/backends/cpu/isa/ops.h"

namespace krait::KRAIT_ISA {
namespace {

// dst[c][r] = src[r][c] for 4-byte elements; src rows are `ld_src` bytes apart, dst rows `ld_dst` elements.
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

uint32_t bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

float from_bits(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}

// f32 -> bf16 bits, to nearest even; NaN stays NaN.
uint32_t to_bf16(float f) {
  const uint32_t u = bits(f);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (u >> 16) | 0x40u;
  return (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
}

bool finite(float f) { return (bits(f) & 0x7F800000u) != 0x7F800000u; }

// x = high + low + e, |e| <= 2^-17 |x|. A value that would round to infinity is cut instead; infinity and NaN have no
// low part, so that they pass through the products as they would in f32.
void split(float f, uint32_t& high, uint32_t& low) {
  high = to_bf16(f);
  low = 0;
  if (!finite(f)) return;
  if (!finite(from_bits(high << 16))) high = bits(f) >> 16;
  low = to_bf16(f - from_bits(high << 16));
}

constexpr int64_t kChunk = 128;  // elements of a row that are converted at a time

// Elements [c0, c0 + n) of a converted row, `parts` runs of n elements.
void convert(XForm form, const float* x, int64_t K, int64_t c0, int64_t n, uint32_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t c = c0 + i;
    if (form == XForm::kRounded) {
      out[i] = to_bf16(x[c]) << 16;
      continue;
    }
    const float x0 = x[2 * c];
    const float x1 = 2 * c + 1 < K ? x[2 * c + 1] : 0.0f;
    if (form == XForm::kPairs) {
      out[i] = to_bf16(x0) | to_bf16(x1) << 16;
    } else {
      uint32_t h0, l0, h1, l1;
      split(x0, h0, l0);
      split(x1, h1, l1);
      out[i] = h0 | h1 << 16;
      out[kChunk + i] = l0 | l1 << 16;
    }
  }
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
  uint32_t buffer[kMaxRows][2 * kChunk];
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
  return static_cast<size_t>((N + kPanel - 1) / kPanel * panel_bytes(dtype, K));
}

void pack_weight(const Exec& exec, const PackWeightParams& p) {
  const int64_t bytes = panel_bytes(p.dtype, p.K), row = p.K * size_of(p.dtype);
  exec.pool->parallel_for((p.N + kPanel - 1) / kPanel, [&](int64_t i) {
    const int64_t left = p.N - i * kPanel;
    pack_panel(p.dtype, static_cast<const char*>(p.src) + i * kPanel * row, left < kPanel ? left : kPanel, p.K,
               static_cast<char*>(p.dst) + i * bytes);
  });
}

}  // namespace krait::KRAIT_ISA
