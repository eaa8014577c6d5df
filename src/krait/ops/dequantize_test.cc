#include "krait/ops/dequantize.h"

#include <gtest/gtest.h>

#include <cstring>

#include "krait/core/error.h"
#include "krait/kernels/blocks.h"

namespace krait {
namespace {

TEST(DequantizeTensor, PlainTypesWiden) {
  Tensor h = Tensor::empty({1, 2}, DType::kF16), b = Tensor::empty({1, 2}, DType::kBF16);
  h.data<uint16_t>()[0] = 0x3C00, h.data<uint16_t>()[1] = 0xC000;  // 1, −2
  b.data<uint16_t>()[0] = 0x3F80, b.data<uint16_t>()[1] = 0xC000;
  for (const Tensor& t : {h, b}) {
    const Tensor x = dequantize(t);
    EXPECT_EQ(x.shape(), t.shape());
    EXPECT_EQ(x.f32()[0], 1);
    EXPECT_EQ(x.f32()[1], -2);
    EXPECT_EQ(dequantize(x).f32()[1], -2);
  }
  EXPECT_THROW(dequantize(Tensor::zeros({4}, DType::kI8)), Error);
}

TEST(DequantizeTensor, RowsOfBlocks) {
  Tensor t = Tensor::zeros({3, 64}, DType::kQ8_0);
  BlockQ8_0 block{0x3800, {}};  // 0.5
  block.q[31] = -100;
  std::memcpy(t.bytes() + 5 * sizeof block, &block, sizeof block);
  const Tensor x = dequantize(t);
  EXPECT_EQ(x.shape(), Shape({3, 64}));
  EXPECT_EQ(x.f32()[3 * 64 - 1], -50);
  EXPECT_EQ(dequantize(t.narrow(0, 2, 1)).f32()[63], -50);
  EXPECT_EQ(x.f32()[0], 0);
}

}  // namespace
}  // namespace krait
