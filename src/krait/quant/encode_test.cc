#include "krait/quant/encode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "krait/core/error.h"
#include "krait/core/rng.h"
#include "krait/ops/dequantize.h"

namespace krait::quant {
namespace {

using testing::HasSubstr;

struct TypeBounds {
  DType type;
  double gaussian, heavy;  // bounds of the relative RMS error, 2 % above the measured values
};
// For scale: a plain rounding to max|x| / half range has 0.0067 (Q8_0), 0.096 (Q4_0), 0.046 (Q5_0) on the Gaussian.
constexpr TypeBounds kBounds[] = {
    {DType::kQ8_0, 0.00478, 0.00663}, {DType::kQ4_0, 0.0819, 0.114},    {DType::kQ4_1, 0.0705, 0.0853},
    {DType::kQ5_0, 0.0406, 0.0559},   {DType::kQ5_1, 0.0337, 0.0408},   {DType::kQ2_K, 0.266, 0.296},
    {DType::kQ3_K, 0.145, 0.179},     {DType::kQ4_K, 0.0707, 0.0859},   {DType::kQ5_K, 0.0347, 0.042},
    {DType::kQ6_K, 0.0167, 0.0217},   {DType::kIQ4_NL, 0.0743, 0.0921}, {DType::kIQ4_XS, 0.0748, 0.093},
};

Tensor filled(int64_t rows, int64_t K, const std::function<double()>& draw) {
  Tensor t = Tensor::empty({rows, K});
  for (int64_t i = 0; i < t.numel(); ++i) t.f32()[i] = static_cast<float>(draw());
  return t;
}

Tensor gaussian(int64_t rows, int64_t K, uint64_t seed = 1) {
  Rng rng(seed);
  return filled(rows, K, [&] { return 0.02 * rng.normal(); });
}

// Student's t with four degrees of freedom.
Tensor heavy_tailed(int64_t rows, int64_t K) {
  Rng rng(2);
  return filled(rows, K, [&] {
    double chi = 0;
    for (int i = 0; i < 4; ++i) chi += std::pow(rng.normal(), 2);
    return 0.02 * rng.normal() / std::sqrt(chi / 4);
  });
}

// Σ w·(a − b)² / Σ w·b², w [K] or undefined.
double relative_error(const Tensor& a, const Tensor& b, const Tensor& w = {}) {
  double e = 0, n = 0;
  for (int64_t i = 0; i < b.numel(); ++i) {
    const double wi = w.defined() ? static_cast<double>(w.f32()[i % b.dim(-1)]) : 1.0;
    const double x = b.f32()[i];
    e += wi * std::pow(static_cast<double>(a.f32()[i]) - x, 2);
    n += wi * x * x;
  }
  return std::sqrt(e / n);
}

class Encode : public testing::TestWithParam<TypeBounds> {
 protected:
  Tensor round_trip(const Tensor& x, const Tensor& importance = {}) {
    return dequantize(encode(x, type_, importance, pool_, "weights"));
  }
  DType type_ = GetParam().type;
  ThreadPool pool_{2};
};

TEST_P(Encode, ErrorOfGaussianAndHeavyTailedRows) {
  const Tensor g = gaussian(16, 1024), h = heavy_tailed(16, 1024);
  EXPECT_LT(relative_error(round_trip(g), g), GetParam().gaussian);
  EXPECT_LT(relative_error(round_trip(h), h), GetParam().heavy);
}

TEST_P(Encode, ConstantAndZeroRows) {
  const Tensor zero = round_trip(Tensor::zeros({2, 512}));
  for (int64_t i = 0; i < zero.numel(); ++i) ASSERT_EQ(zero.f32()[i], 0);
  for (const double c : {0.3, -0.3}) {
    const Tensor x = filled(1, 512, [&] { return c; });
    EXPECT_LT(relative_error(round_trip(x), x), 4e-3) << c;  // a half's precision, twice
  }
}

TEST_P(Encode, OneValueAmongZeros) {
  for (const float c : {1.0f, -1.0f}) {
    Tensor x = Tensor::zeros({1, 256});
    x.f32()[77] = c;
    const Tensor y = round_trip(x);
    for (int64_t i = 0; i < 256; ++i) {
      ASSERT_LE(std::fabs(y.f32()[i] - x.f32()[i]), 0.02f) << i;  // IQ4 has no level at 0
    }
  }
}

TEST_P(Encode, TinyAndHugeValues) {
  const Tensor x = gaussian(4, 512);
  const double at_one = relative_error(round_trip(x), x);
  for (const float scale : {0.05f, 1e5f}) {
    Tensor y = x.clone();
    for (int64_t i = 0; i < y.numel(); ++i) y.f32()[i] *= scale;
    EXPECT_NEAR(relative_error(round_trip(y), y), at_one, 0.1 * at_one) << scale;
  }
  // Too small for halves: zero or near, never wild. 2^-24 is the smallest half.
  for (const float scale : {1e-5f, 1e-8f, 1e-36f, 1e-42f}) {
    Tensor y = x.clone();
    for (int64_t i = 0; i < y.numel(); ++i) y.f32()[i] *= scale;
    const Tensor z = round_trip(y);
    for (int64_t i = 0; i < y.numel(); ++i) ASSERT_LE(std::fabs(z.f32()[i] - y.f32()[i]), 0.2f * scale + 1e-7f) << i;
  }
  const Tensor edge = filled(1, 256, [] { return static_cast<double>(kLargestWeight); });
  EXPECT_LT(relative_error(round_trip(edge), edge), 4e-3);
}

TEST_P(Encode, ImportanceLowersTheWeightedError) {
  Rng rng(3);
  const Tensor x = gaussian(8, 512);
  Tensor w = filled(1, 512, [&] { return std::exp(1.5 * rng.normal()); }).reshape({512});
  const double weighted = relative_error(round_trip(x, w), x, w);
  EXPECT_LT(weighted, 0.985 * relative_error(round_trip(x), x, w));
  // Only ratios matter, and columns that have none are still rounded, not dropped.
  Tensor scaled = w.clone(), none = w.clone();
  for (int64_t i = 0; i < 512; ++i) scaled.f32()[i] *= 1024;
  for (int64_t i = 0; i < 512; i += i < 256 ? 1 : 2) none.f32()[i] = 0;
  EXPECT_EQ(relative_error(round_trip(x, scaled), x, w), weighted);
  EXPECT_LT(relative_error(round_trip(x, none), x), 3 * relative_error(round_trip(x), x));
}

TEST_P(Encode, EncodingDecodedBlocksChangesLittle) {
  const Tensor x = gaussian(8, 512), once = round_trip(x), twice = round_trip(once);
  EXPECT_LT(relative_error(twice, once), 0.25 * relative_error(once, x));
}

TEST_P(Encode, DoesNotDependOnThreads) {
  const Tensor x = heavy_tailed(9, 256);
  ThreadPool one(1), three(3);
  const Tensor a = encode(x, type_, {}, one), b = encode(x, type_, {}, three);
  EXPECT_EQ(std::memcmp(a.bytes(), b.bytes(), static_cast<size_t>(a.nbytes())), 0);
}

TEST_P(Encode, RefusesWhatItCannotHold) {
  const auto refusal = [&](float bad) {
    Tensor x = gaussian(2, 256);
    x.f32()[300] = bad;
    try {
      round_trip(x);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadData);
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -65600.0f}) {
    EXPECT_THAT(refusal(bad), HasSubstr("1 of 512 values of weights"));
  }
  EXPECT_THROW(round_trip(gaussian(1, 48)), Error);  // no whole block
  EXPECT_THROW(round_trip(gaussian(1, 256), Tensor::zeros({255})), Error);
}

INSTANTIATE_TEST_SUITE_P(Types, Encode, testing::ValuesIn(kBounds),
                         [](const auto& p) { return std::string(name_of(p.param.type)); });

TEST(EncodeRow, PlainTypesHaveNoBlocks) {
  float x[32] = {};
  EXPECT_THROW(encode_row(DType::kF16, x, nullptr, 32, x), Error);
}

}  // namespace
}  // namespace krait::quant
