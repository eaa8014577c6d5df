// Packing of block types into panels (int8_format.h).
#include <string.h>

#include "krait/backends/cpu/isa/int8_tile.h"
#include "krait/backends/cpu/isa/matmul_pack.h"
#include "krait/backends/cpu/isa/ops.h"
#include "krait/kernels/reference/dequantize.h"

namespace krait::KRAIT_ISA {
namespace {

constexpr int64_t kPanelsPerTask = 8;

KRAIT_INLINE __m256i load32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
KRAIT_INLINE void store32(uint8_t* p, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
// Bits [n, n + count) of each byte, moved to bit `to`.
KRAIT_INLINE __m256i field(__m256i v, int n, int count, int to) {
  const __m256i moved = n >= to ? _mm256_srli_epi16(v, n - to) : _mm256_slli_epi16(v, to - n);
  return _mm256_and_si256(moved, _mm256_set1_epi8(static_cast<char>(((1 << count) - 1) << to)));
}

// unpack_codes(b, u): the codes of a block in element order, unsigned.
void unpack_codes(const BlockQ8_0& b, uint8_t* u) { store32(u, _mm256_xor_si256(load32(b.q), _mm256_set1_epi8(-128))); }

KRAIT_INLINE __m256i nibbles(const uint8_t* bytes) {  // low ones first
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
  const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(v), _mm_srli_epi16(v, 4), 1);
  return _mm256_and_si256(both, _mm256_set1_epi8(15));
}
KRAIT_INLINE __m256i fifth_bits(const uint8_t* h) {  // bit i of h -> bit 4 of byte i
  int bits;
  memcpy(&bits, h, 4);
  const __m256i bytes = _mm256_shuffle_epi8(
      _mm256_set1_epi32(bits), _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
  const __m256i select = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, select), select);
  return _mm256_and_si256(set, _mm256_set1_epi8(16));
}
void unpack_codes(const BlockQ4_0& b, uint8_t* u) { store32(u, nibbles(b.q)); }
void unpack_codes(const BlockQ4_1& b, uint8_t* u) { store32(u, nibbles(b.q)); }
void unpack_codes(const BlockIQ4_NL& b, uint8_t* u) { store32(u, nibbles(b.q)); }
void unpack_codes(const BlockQ5_0& b, uint8_t* u) { store32(u, _mm256_or_si256(nibbles(b.q), fifth_bits(b.h))); }
void unpack_codes(const BlockQ5_1& b, uint8_t* u) { store32(u, _mm256_or_si256(nibbles(b.q), fifth_bits(b.h))); }

void unpack_codes(const BlockQ2_K& b, uint8_t* u) {
  KRAIT_UNROLL for (int g = 0; g < 8; ++g) store32(u + 32 * g, field(load32(b.q + g / 4 * 32), g % 4 * 2, 2, 0));
}
void unpack_codes(const BlockQ3_K& b, uint8_t* u) {
  KRAIT_UNROLL for (int g = 0; g < 8; ++g) {
    const __m256i low = field(load32(b.q + g / 4 * 32), g % 4 * 2, 2, 0);
    store32(u + 32 * g, _mm256_or_si256(low, field(load32(b.hm), g, 1, 2)));
  }
}
void unpack_codes(const BlockQ4_K& b, uint8_t* u) {
  KRAIT_UNROLL for (int g = 0; g < 8; ++g) store32(u + 32 * g, field(load32(b.q + g / 2 * 32), g % 2 * 4, 4, 0));
}
void unpack_codes(const BlockQ5_K& b, uint8_t* u) {
  KRAIT_UNROLL for (int g = 0; g < 8; ++g) {
    const __m256i low = field(load32(b.q + g / 2 * 32), g % 2 * 4, 4, 0);
    store32(u + 32 * g, _mm256_or_si256(low, field(load32(b.h), g, 1, 4)));
  }
}
void unpack_codes(const BlockQ6_K& b, uint8_t* u) {
  KRAIT_UNROLL for (int g = 0; g < 8; ++g) {
    const __m256i low = field(load32(b.ql + g / 4 * 64 + g % 2 * 32), g % 4 / 2 * 4, 4, 0);
    store32(u + 32 * g, _mm256_or_si256(low, field(load32(b.qh + g / 4 * 32), g % 4 * 2, 2, 4)));
  }
}
void unpack_codes(const BlockIQ4_XS& b, uint8_t* u) {
  for (int g = 0; g < 8; ++g) store32(u + 32 * g, nibbles(b.q + 16 * g));
}

// Bits [low, low + count) of the 8 steps -> one plane of `count` bits. Written past the caches, which would first have
// to read what is about to be replaced.
template <int kCount>
KRAIT_INLINE void stream_plane(const char* steps, int low, char* dst) {
  constexpr int kVectors = kCount, kParts = 8 / kCount;  // steps j of one vector: j % kVectors equal
  const IVec mask = set1_i8((1 << kCount) - 1);
  KRAIT_UNROLL for (int i = 0; i < kVectors; ++i) {
    KRAIT_UNROLL for (int at = 0; at < 64; at += 4 * kLanes) {
      IVec packed = zero_i();
      KRAIT_UNROLL for (int part = 0; part < kParts; ++part) {
        const IVec step = load_i(steps + 64 * (part * kVectors + i) + at);
        packed = bit_or(packed, shift_right(bit_and(shift_right(step, low), mask), -kCount * part));
      }
      stream_i(dst + 64 * i + at, packed);
    }
  }
}

template <int kBits>
KRAIT_INLINE void stream_planes(const char* steps, char* dst) {
  if constexpr (kBits == 8) stream_plane<8>(steps, 0, dst);
  if constexpr (kBits >= 4 && kBits < 8) stream_plane<4>(steps, 0, dst);
  if constexpr (kBits == 5) stream_plane<1>(steps, 4, dst + 256);
  if constexpr (kBits == 6) stream_plane<2>(steps, 4, dst + 256);
  if constexpr (kBits < 4) stream_plane<2>(steps, 0, dst);
  if constexpr (kBits == 3) stream_plane<1>(steps, 2, dst + 128);
}

// The integer scales of a block's groups as bytes: scale, and for kBytePairs the minimum after it.
template <DType kType>
KRAIT_INLINE void unpack_scales(const typename BlockOf<kType>::type& b, uint8_t* out) {
  constexpr Format f = format_of(kType);
  if constexpr (f.form == ScaleForm::kBytePairs) {  // four groups at a time; reference: scale6, min6
    uint32_t s[3];
    memcpy(s, b.s, 12);
    constexpr uint32_t k6 = 0x3F3F3F3F, k4 = 0x0F0F0F0F, k2 = 0x03030303;
    const uint32_t scales[2] = {s[0] & k6, (s[2] & k4) | ((s[0] >> 6) & k2) << 4};
    const uint32_t mins[2] = {s[1] & k6, ((s[2] >> 4) & k4) | ((s[1] >> 6) & k2) << 4};
    memcpy(out, scales, 8);
    memcpy(out + 8, mins, 8);
  } else if constexpr (f.form == ScaleForm::kNibblePairs) {
    memcpy(out, b.s, 16);
  } else if constexpr (f.form == ScaleForm::kSigned) {
    constexpr int kGroups = static_cast<int>(block_of(kType).elements) / f.group;
    for (int g = 0; g < kGroups; ++g) out[g] = static_cast<uint8_t>(reference::int_scale(b, g));
  }
}

// The scales of row r of a panel's block.
template <DType kType>
KRAIT_INLINE void store_scales(const typename BlockOf<kType>::type& b, int64_t r, char* dst) {
  constexpr Format f = format_of(kType);
  memcpy(dst + 2 * r, &b.d, 2);
  if constexpr (requires { b.m; }) memcpy(dst + 2 * (kPanel + r), &b.m, 2);
  if constexpr (requires { b.dmin; }) memcpy(dst + 2 * (kPanel + r), &b.dmin, 2);
  if constexpr (f.group_scale_bytes() != 0) {
    constexpr int kGroups = static_cast<int>(block_of(kType).elements) / f.group;
    uint8_t bytes[16];
    unpack_scales<kType>(b, bytes);
    char* at = dst + f.half_bytes() + r;
    for (int g = 0; g < kGroups; ++g, at += f.group_scale_bytes()) {
      *at = static_cast<char>(bytes[g]);
      if constexpr (f.form == ScaleForm::kBytePairs) at[kPanel] = static_cast<char>(bytes[8 + g]);
    }
  }
}

template <DType kType>
void pack_panel(const char* src, int64_t rows, int64_t K, char* dst) {
  using Block = typename BlockOf<kType>::type;
  constexpr Format f = format_of(kType);
  constexpr int kElements = static_cast<int>(block_of(kType).elements);
  alignas(64) uint8_t codes[kPanel][kElements];
  alignas(64) float steps[kElements / 4 * kPanel];
  if (rows < kPanel) {
    memset(codes, 0, sizeof(codes));
    memset(dst, 0, static_cast<size_t>(int8_panel_bytes(kType, K)));
  }
  constexpr auto kBytes = static_cast<int64_t>(sizeof(Block));
  const int64_t row_bytes = K / kElements * kBytes;
  const char* next = src + kPanel * row_bytes;  // 16 rows at a time are too many streams for the processor to follow
  char* scales = dst + K / 32 * f.code_bytes();
  for (int64_t k = 0; k < K; k += kElements, next += kPanel * kBytes) {
    for (int64_t at = 0; at < kPanel * kBytes; at += 64) __builtin_prefetch(next + at, 0, 2);
    for (int64_t r = 0; r < rows; ++r) {
      const Block& b = *reinterpret_cast<const Block*>(src + r * row_bytes);
      unpack_codes(b, codes[r]);
      store_scales<kType>(b, r, scales);
    }
    transpose(reinterpret_cast<const char*>(codes), kElements, kPanel, kElements / 4, steps, kPanel);
    for (int c = 0; c < kElements; c += 32) {
      stream_planes<f.bits>(reinterpret_cast<const char*>(steps) + c * kPanel, dst);
      dst += f.code_bytes();
    }
    src += kBytes;
    scales += int8_scale_bytes(kType);
  }
}

using PackPanel = void (*)(const char* src, int64_t rows, int64_t K, char* dst);

PackPanel panel_packer(DType t) {
  switch (t) {
#define KRAIT_PANEL_PACKER(name) \
  case DType::k##name:           \
    return pack_panel<DType::k##name>;
    KRAIT_BLOCK_TYPES(KRAIT_PANEL_PACKER)
#undef KRAIT_PANEL_PACKER
    default:
      return nullptr;
  }
}

}  // namespace

size_t int8_packed_bytes(DType t, int64_t N, int64_t K) {
  return static_cast<size_t>((N + kPanel - 1) / kPanel * int8_panel_bytes(t, K));
}

void int8_pack(const Exec& exec, const PackWeightParams& p) {
  const int64_t bytes = int8_panel_bytes(p.dtype, p.K), row = bytes_of(p.dtype, p.K);
  const PackPanel pack = panel_packer(p.dtype);
  const int64_t panels = (p.N + kPanel - 1) / kPanel;
  exec.pool->parallel_for((panels + kPanelsPerTask - 1) / kPanelsPerTask, [&](int64_t task) {
    for (int64_t i = task * kPanelsPerTask; i < panels && i < (task + 1) * kPanelsPerTask; ++i) {
      const int64_t left = p.N - i * kPanel;
      pack(static_cast<const char*>(p.src) + i * kPanel * row, left < kPanel ? left : kPanel, p.K,
           static_cast<char*>(p.dst) + i * bytes);
    }
    _mm_sfence();
  });
}

}  // namespace krait::KRAIT_ISA
