#include "krait/kernels/reference/dequantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "krait/core/rng.h"

namespace krait::reference {
namespace {

// Element i of a block, straight from spec/gguf.md §5.2 and independent of the decoders: one expression a type.
int bit(const uint8_t* h, int i) { return (h[i / 8] >> (i % 8)) & 1; }
int nibble(const uint8_t* q, int i) { return i < 16 ? q[i] & 15 : q[i - 16] >> 4; }
float value(const BlockQ8_0& b, int i) { return f16_to_f32(b.d) * b.q[i]; }
float value(const BlockQ4_0& b, int i) { return f16_to_f32(b.d) * static_cast<float>(nibble(b.q, i) - 8); }
float value(const BlockQ4_1& b, int i) {
  return f16_to_f32(b.d) * static_cast<float>(nibble(b.q, i)) + f16_to_f32(b.m);
}
float value(const BlockQ5_0& b, int i) {
  return f16_to_f32(b.d) * static_cast<float>((nibble(b.q, i) | bit(b.h, i) << 4) - 16);
}
float value(const BlockQ5_1& b, int i) {
  return f16_to_f32(b.d) * static_cast<float>(nibble(b.q, i) | bit(b.h, i) << 4) + f16_to_f32(b.m);
}
struct Index {  // i = 128a + 32k + l = 32g + l, j = 8a + 2k + l div 16
  explicit Index(int i) : a(i / 128), k(i / 32 % 4), l(i % 32), g(i / 32), j(8 * a + 2 * k + l / 16) {}
  int a, k, l, g, j;
};
float value(const BlockQ2_K& b, int i) {
  const Index x(i);
  const int v = (b.q[32 * x.a + x.l] >> (2 * x.k)) & 3;
  return f16_to_f32(b.d) * static_cast<float>(b.s[x.j] & 15) * static_cast<float>(v) -
         f16_to_f32(b.dmin) * static_cast<float>(b.s[x.j] >> 4);
}
float value(const BlockQ3_K& b, int i) {
  const Index x(i);
  const int v = ((b.q[32 * x.a + x.l] >> (2 * x.k)) & 3) - (((b.hm[x.l] >> (4 * x.a + x.k)) & 1) != 0 ? 0 : 4);
  const int low = x.j < 8 ? b.s[x.j] & 15 : b.s[x.j - 8] >> 4;
  const int scale = (low | ((b.s[8 + x.j % 4] >> (2 * (x.j / 4))) & 3) << 4) - 32;
  return f16_to_f32(b.d) * static_cast<float>(scale) * static_cast<float>(v);
}
template <class B>
float value_k(const B& b, const Index& x, int v) {
  const int sc = x.g < 4 ? b.s[x.g] & 63 : (b.s[x.g + 4] & 15) | (b.s[x.g - 4] >> 6) << 4;
  const int mn = x.g < 4 ? b.s[x.g + 4] & 63 : (b.s[x.g + 4] >> 4) | (b.s[x.g] >> 6) << 4;
  return f16_to_f32(b.d) * static_cast<float>(sc) * static_cast<float>(v) - f16_to_f32(b.dmin) * static_cast<float>(mn);
}
float value(const BlockQ4_K& b, int i) {
  const Index x(i);
  return value_k(b, x, (b.q[32 * (x.g / 2) + x.l] >> (4 * (x.g % 2))) & 15);
}
float value(const BlockQ5_K& b, int i) {
  const Index x(i);
  return value_k(b, x, ((b.q[32 * (x.g / 2) + x.l] >> (4 * (x.g % 2))) & 15) | ((b.h[x.l] >> x.g) & 1) << 4);
}
float value(const BlockQ6_K& b, int i) {
  const Index x(i);
  const int byte = b.ql[64 * x.a + 32 * (x.k % 2) + x.l];
  const int v = ((x.k < 2 ? byte & 15 : byte >> 4) | ((b.qh[32 * x.a + x.l] >> (2 * x.k)) & 3) << 4) - 32;
  return f16_to_f32(b.d) * static_cast<float>(b.s[x.j]) * static_cast<float>(v);
}
float value(const BlockIQ4_NL& b, int i) { return f16_to_f32(b.d) * kIq4Values[nibble(b.q, i)]; }
float value(const BlockIQ4_XS& b, int i) {
  const Index x(i);
  const int ls = ((b.sl[x.g / 2] >> (4 * (x.g % 2))) & 15) | ((b.sh >> (2 * x.g)) & 3) << 4;
  return f16_to_f32(b.d) * static_cast<float>(ls - 32) * kIq4Values[nibble(b.q + 16 * x.g, x.l)];
}

// Random bytes are blocks of every type; scales reach from subnormals to infinities and NaNs.
template <DType kType>
void compare_with_definition() {
  using Block = typename BlockOf<kType>::type;
  constexpr int kElements = static_cast<int>(block_of(kType).elements);
  Rng rng(1, static_cast<uint64_t>(kType));
  std::vector<Block> blocks(200);
  auto* bytes = reinterpret_cast<uint8_t*>(blocks.data());
  for (size_t i = 0; i < blocks.size() * sizeof(Block); ++i) bytes[i] = static_cast<uint8_t>(rng.next_u64());
  std::vector<float> out(blocks.size() * kElements);
  ASSERT_TRUE(dequantize_row(kType, blocks.data(), static_cast<int64_t>(out.size()), out.data()));
  int finite = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const float want = value(blocks[i / kElements], static_cast<int>(i % kElements));
    finite += std::isfinite(want) ? 1 : 0;
    if (std::isnan(want) && std::isnan(out[i])) continue;
    ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(want)) << name_of(kType) << " element " << i;
  }
  EXPECT_GT(finite, 100);
}

#define KRAIT_DECODE_TEST(name) \
  TEST(Dequantize, name) { compare_with_definition<DType::k##name>(); }
KRAIT_BLOCK_TYPES(KRAIT_DECODE_TEST)
#undef KRAIT_DECODE_TEST

TEST(Dequantize, LeavesPlainTypesAlone) {
  float x = 1, y = 2;
  EXPECT_FALSE(dequantize_row(DType::kF32, &x, 1, &y));
  EXPECT_EQ(y, 2);
}

}  // namespace
}  // namespace krait::reference
