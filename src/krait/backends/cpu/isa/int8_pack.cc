// Packing of block types into panels (int8_format.h).
#include <stddef.h>
#include <string.h>

#include "krait/backends/cpu/isa/int8_tile.h"
#include "krait/backends/cpu/isa/matmul_pack.h"
#include "krait/backends/cpu/isa/ops.h"
#include "krait/kernels/reference/dequantize.h"

namespace krait::KRAIT_ISA {
namespace {

constexpr int kRowLanes = kLanes / 4;  // 16-byte lanes of a vector

KRAIT_INLINE __m128i load16(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

// One lane from each of kRowLanes rows: lane l is made by lane(4·l rows on).
#ifdef __AVX512F__
template <class F>
KRAIT_INLINE IVec lanes_of(F lane) {
  const IVec two = _mm512_inserti32x4(_mm512_castsi128_si512(lane(0)), lane(4), 1);
  return _mm512_inserti32x4(_mm512_inserti32x4(two, lane(8), 2), lane(12), 3);
}
KRAIT_INLINE IVec shuffle_bytes(IVec v, __m128i by) { return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(by)); }
KRAIT_INLINE IVec where_set(IVec v, IVec bits) { return _mm512_movm_epi8(_mm512_test_epi8_mask(v, bits)); }
KRAIT_INLINE IVec low32(IVec a, IVec b) { return _mm512_unpacklo_epi32(a, b); }
KRAIT_INLINE IVec high32(IVec a, IVec b) { return _mm512_unpackhi_epi32(a, b); }
KRAIT_INLINE IVec low64(IVec a, IVec b) { return _mm512_unpacklo_epi64(a, b); }
KRAIT_INLINE IVec high64(IVec a, IVec b) { return _mm512_unpackhi_epi64(a, b); }
KRAIT_INLINE IVec set1_i64(uint64_t v) { return _mm512_set1_epi64(static_cast<int64_t>(v)); }
#else
template <class F>
KRAIT_INLINE IVec lanes_of(F lane) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(lane(0)), lane(4), 1);
}
KRAIT_INLINE IVec shuffle_bytes(IVec v, __m128i by) { return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(by)); }
KRAIT_INLINE IVec where_set(IVec v, IVec bits) { return _mm256_cmpeq_epi8(bit_and(v, bits), bits); }
KRAIT_INLINE IVec low32(IVec a, IVec b) { return _mm256_unpacklo_epi32(a, b); }
KRAIT_INLINE IVec high32(IVec a, IVec b) { return _mm256_unpackhi_epi32(a, b); }
KRAIT_INLINE IVec low64(IVec a, IVec b) { return _mm256_unpacklo_epi64(a, b); }
KRAIT_INLINE IVec high64(IVec a, IVec b) { return _mm256_unpackhi_epi64(a, b); }
KRAIT_INLINE IVec set1_i64(uint64_t v) { return _mm256_set1_epi64x(static_cast<int64_t>(v)); }
#endif

// Dword j of row i of each lane becomes dword i of vector j.
KRAIT_INLINE void transpose4(IVec (&v)[4]) {
  const IVec a = low32(v[0], v[1]), b = low32(v[2], v[3]), c = high32(v[0], v[1]), d = high32(v[2], v[3]);
  v[0] = low64(a, b);
  v[1] = high64(a, b);
  v[2] = low64(c, d);
  v[3] = high64(c, d);
}

// Bits [n, n + count) of each byte, moved to bit `to`.
KRAIT_INLINE IVec field(IVec v, int n, int count, int to) {
  return bit_and(shift_right(v, n - to), set1_i8(((1 << count) - 1) << to));
}

// The same block of several rows, which lie `stride` bytes apart.
template <class Block>
struct Rows {
  const char* first;
  int64_t stride;

  [[gnu::always_inline]] const Block& at(int64_t r) const {
    return *reinterpret_cast<const Block*>(first + r * stride);
  }
  // 16 bytes of rows 0, 4, …, `offset` bytes into the block.
  [[gnu::always_inline]] IVec bytes(size_t offset) const {
    return lanes_of([&](int64_t r) { return load16(first + r * stride + offset); });
  }
};

// Codes of 32 k, unsigned: k 0 to 15 and 16 to 31 of kRowLanes rows.
struct Codes {
  IVec low, high;
};

KRAIT_INLINE Codes halves_of_nibbles(IVec v) { return {field(v, 0, 4, 0), field(v, 4, 4, 0)}; }
KRAIT_INLINE Codes join(Codes a, Codes b) { return {bit_or(a.low, b.low), bit_or(a.high, b.high)}; }

// Bits [n, n + count) of 32 bytes of each row, moved to bit `to`.
template <class Block>
KRAIT_INLINE Codes fields(const Rows<Block>& rows, size_t offset, int n, int count, int to) {
  return {field(rows.bytes(offset), n, count, to), field(rows.bytes(offset + 16), n, count, to)};
}

template <class Block>
KRAIT_INLINE Codes fifth_bits(const Rows<Block>& rows) {  // bit i of h -> bit 4 of code i
  const IVec h = lanes_of([&](int64_t r) {
    int bits;
    memcpy(&bits, rows.at(r).h, 4);
    return _mm_set1_epi32(bits);
  });
  const IVec select = set1_i64(0x8040201008040201), bit = set1_i8(16);
  const IVec low = shuffle_bytes(h, _mm_set_epi64x(0x0101010101010101, 0));
  const IVec high = shuffle_bytes(h, _mm_set_epi64x(0x0303030303030303, 0x0202020202020202));
  return {bit_and(where_set(low, select), bit), bit_and(where_set(high, select), bit)};
}

// Codes of group g of 32.
template <DType kType>
KRAIT_INLINE Codes codes_of(const Rows<typename BlockOf<kType>::type>& rows, int g) {
  using Block = typename BlockOf<kType>::type;
  const auto G = static_cast<size_t>(g);
  if constexpr (kType == DType::kQ8_0) {
    const IVec sign = set1_i8(-128);
    return {bit_xor(rows.bytes(offsetof(Block, q)), sign), bit_xor(rows.bytes(offsetof(Block, q) + 16), sign)};
  } else if constexpr (kType == DType::kQ4_0 || kType == DType::kQ4_1 || kType == DType::kIQ4_NL) {
    return halves_of_nibbles(rows.bytes(offsetof(Block, q)));
  } else if constexpr (kType == DType::kQ5_0 || kType == DType::kQ5_1) {
    return join(halves_of_nibbles(rows.bytes(offsetof(Block, q))), fifth_bits(rows));
  } else if constexpr (kType == DType::kIQ4_XS) {
    return halves_of_nibbles(rows.bytes(offsetof(Block, q) + 16 * G));
  } else if constexpr (kType == DType::kQ2_K) {
    return fields(rows, offsetof(Block, q) + G / 4 * 32, g % 4 * 2, 2, 0);
  } else if constexpr (kType == DType::kQ3_K) {
    return join(fields(rows, offsetof(Block, q) + G / 4 * 32, g % 4 * 2, 2, 0),
                fields(rows, offsetof(Block, hm), g, 1, 2));
  } else if constexpr (kType == DType::kQ4_K) {
    return fields(rows, offsetof(Block, q) + G / 2 * 32, g % 2 * 4, 4, 0);
  } else if constexpr (kType == DType::kQ5_K) {
    return join(fields(rows, offsetof(Block, q) + G / 2 * 32, g % 2 * 4, 4, 0),
                fields(rows, offsetof(Block, h), g, 1, 4));
  } else {
    static_assert(kType == DType::kQ6_K);
    return join(fields(rows, offsetof(Block, ql) + G / 4 * 64 + G % 2 * 32, g % 4 / 2 * 4, 4, 0),
                fields(rows, offsetof(Block, qh) + G / 4 * 32, g % 4 * 2, 2, 4));
  }
}

// Bits [low, low + count) of the codes of 4·kRowLanes rows -> their part of one plane of `count` bits. Written past the
// caches, which would first have to read what is about to be replaced.
template <int kCount>
KRAIT_INLINE void stream_plane(const Codes (&codes)[4], int low, char* dst) {
  IVec v[4];  // steps j in the low halves of bytes, j + 4 in the high ones
  KRAIT_UNROLL for (int i = 0; i < 4; ++i) {
    v[i] = bit_or(field(codes[i].low, low, kCount, 0), field(codes[i].high, low, kCount, 4));
  }
  transpose4(v);
  constexpr int kVectors = kCount;
  KRAIT_UNROLL for (int j = 3; j >= kVectors; --j) {
    v[j - kVectors] = bit_or(v[j - kVectors], shift_right(v[j], -kCount));
  }
  KRAIT_UNROLL for (int j = 0; j < kVectors; ++j) stream_i(dst + 64 * j, v[j]);
}

KRAIT_INLINE void stream_bytes(const Codes (&codes)[4], char* dst) {
  IVec low[4], high[4];
  KRAIT_UNROLL for (int i = 0; i < 4; ++i) {
    low[i] = codes[i].low;
    high[i] = codes[i].high;
  }
  transpose4(low);
  transpose4(high);
  KRAIT_UNROLL for (int j = 0; j < 4; ++j) {
    stream_i(dst + 64 * j, low[j]);
    stream_i(dst + 64 * (j + 4), high[j]);
  }
}

template <int kBits>
KRAIT_INLINE void stream_planes(const Codes (&codes)[4], char* dst) {
  if constexpr (kBits == 8) stream_bytes(codes, dst);
  if constexpr (kBits >= 4 && kBits < 8) stream_plane<4>(codes, 0, dst);
  if constexpr (kBits == 5) stream_plane<1>(codes, 4, dst + 256);
  if constexpr (kBits == 6) stream_plane<2>(codes, 4, dst + 256);
  if constexpr (kBits < 4) stream_plane<2>(codes, 0, dst);
  if constexpr (kBits == 3) stream_plane<1>(codes, 2, dst + 128);
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

// [16][16] bytes -> [16][16].
KRAIT_INLINE void transpose_bytes(const uint8_t (&in)[kPanel][16], __m128i (&out)[16]) {
  __m128i v[16];
  KRAIT_UNROLL for (int i = 0; i < 16; ++i) v[i] = load16(in[i]);
  // Four times rows i and i + 8 become rows 2i and 2i + 1: a row's number gains at the end the bit a column's loses.
  for (int round = 0; round < 4; ++round) {
    KRAIT_UNROLL for (int i = 0; i < 8; ++i) {
      out[2 * i] = _mm_unpacklo_epi8(v[i], v[i + 8]);
      out[2 * i + 1] = _mm_unpackhi_epi8(v[i], v[i + 8]);
    }
    KRAIT_UNROLL for (int i = 0; i < 16; ++i) v[i] = out[i];
  }
}

// The scales of a panel's block. False if one of them is infinite or NaN.
template <DType kType>
KRAIT_INLINE bool store_scales(const Rows<typename BlockOf<kType>::type>& rows, char* dst) {
  constexpr Format f = format_of(kType);
  KRAIT_UNROLL for (int r = 0; r < kPanel; ++r) {
    const auto& b = rows.at(r);
    memcpy(dst + 2 * r, &b.d, 2);
    if constexpr (requires { b.m; }) memcpy(dst + 2 * (kPanel + r), &b.m, 2);
    if constexpr (requires { b.dmin; }) memcpy(dst + 2 * (kPanel + r), &b.dmin, 2);
  }
  if constexpr (f.group_scale_bytes() != 0) {
    constexpr int kGroups = static_cast<int>(block_of(kType).elements) / f.group;
    alignas(64) uint8_t bytes[kPanel][16] = {};
    __m128i groups[16];
    KRAIT_UNROLL for (int r = 0; r < kPanel; ++r) unpack_scales<kType>(rows.at(r), bytes[r]);
    transpose_bytes(bytes, groups);
    char* at = dst + f.half_bytes();
    KRAIT_UNROLL for (int g = 0; g < kGroups; ++g, at += f.group_scale_bytes()) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at), groups[g]);
      if constexpr (f.form == ScaleForm::kBytePairs) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(at + kPanel), groups[8 + g]);
      }
    }
  }
  const __m256i exponent = _mm256_set1_epi16(0x7C00);
  int bad = 0;
  for (int at = 0; at < f.half_bytes(); at += 32) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(dst + at));
    bad |= _mm256_movemask_epi8(_mm256_cmpeq_epi16(_mm256_and_si256(v, exponent), exponent));
  }
  return bad == 0;
}

// False if a scale is infinite or NaN.
template <DType kType>
bool pack_panel(const char* src, int64_t rows, int64_t K, char* dst) {
  using Block = typename BlockOf<kType>::type;
  constexpr Format f = format_of(kType);
  constexpr auto kBytes = static_cast<int64_t>(sizeof(Block));
  constexpr int64_t kElements = block_of(kType).elements;
  const int64_t row_bytes = K / kElements * kBytes;
  const char* next = src + kPanel * row_bytes;  // 16 rows at a time are too many streams for the processor to follow
  char* scales = dst + K / 32 * f.code_bytes();
  char whole[kPanel * sizeof(Block)] = {};  // of a panel with fewer rows; the others are zero
  bool finite = true;
  for (int64_t k = 0; k < K; k += kElements, next += kPanel * kBytes, src += kBytes) {
    for (int64_t at = 0; at < kPanel * kBytes; at += 64) __builtin_prefetch(next + at, 0, 2);
    Rows<Block> panel{src, row_bytes};
    if (rows < kPanel) {
      for (int64_t r = 0; r < rows; ++r) memcpy(whole + r * kBytes, src + r * row_bytes, sizeof(Block));
      panel = {whole, kBytes};
    }
    finite &= store_scales<kType>(panel, scales);
    scales += int8_scale_bytes(kType);
    KRAIT_UNROLL for (int g = 0; g < kElements / 32; ++g, dst += f.code_bytes()) {
      KRAIT_UNROLL for (int strip = 0; strip < kStrips; ++strip) {
        Codes codes[4];
        KRAIT_UNROLL for (int i = 0; i < 4; ++i) {
          codes[i] = codes_of<kType>({panel.first + (strip * kLanes + i) * panel.stride, panel.stride}, g);
        }
        stream_planes<f.bits>(codes, dst + strip * 4 * kLanes);
      }
    }
  }
  return finite;
}

using PackPanel = bool (*)(const char* src, int64_t rows, int64_t K, char* dst);

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
  pack_panels(exec, p, bytes, [&](int64_t i, int64_t rows) {
    const bool finite =
        pack(static_cast<const char*>(p.src) + i * kPanel * row, rows, p.K, static_cast<char*>(p.dst) + i * bytes);
    _mm_sfence();
    return finite;
  });
}

}  // namespace krait::KRAIT_ISA
