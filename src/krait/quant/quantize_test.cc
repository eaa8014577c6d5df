#include "krait/quant/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "krait/core/error.h"
#include "krait/io/gguf.h"
#include "krait/io/test_folder.h"
#include "krait/ops/dequantize.h"
#include "krait/quant/test_specs.h"

namespace krait::quant {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Tensor rows(std::initializer_list<float> values, int64_t K) {
  Tensor t = Tensor::empty({static_cast<int64_t>(values.size()) / K, K});
  std::copy(values.begin(), values.end(), t.f32());
  return t;
}

TEST(Calibration, MeanSquaresOfEachColumnOverAllRowsSeen) {
  ActivationStats stats;
  stats.matmul("w", rows({1, 2, 3, -4}, 2));
  stats.matmul("w", rows({5, 0}, 2));
  stats.matmul("v", rows({9, 2, 9, 3}, 2).narrow(1, 1, 1));  // a slice of wider rows
  EXPECT_THAT(stats.mean_squares("w"), testing::ElementsAre(35.0f / 3, 20.0f / 3));
  EXPECT_THAT(stats.mean_squares("v"), testing::ElementsAre(6.5f));
  EXPECT_THAT(stats.mean_squares("u"), testing::IsEmpty());
  EXPECT_EQ(stats.rows("w"), 3);
}

// Statistics as a calibration of that model would leave them.
ActivationStats some_stats(const ModelSpec& s) {
  ActivationStats stats;
  for (const ParamSpec& p : model_params(s)) {
    if (p.role == ParamRole::kVector) continue;
    Tensor x = Tensor::empty({3, p.shape[-1]});
    for (int64_t i = 0; i < x.numel(); ++i) x.f32()[i] = static_cast<float>(i % 7) - 3;
    stats.matmul(p.name, x);
  }
  return stats;
}

TEST(Calibration, StatisticsAreKeptInAFile) {
  const io::TestFolder folder;
  const ModelSpec s = test::wide_spec("mamba");
  const ActivationStats stats = some_stats(s);
  stats.save(folder.path() / "stats.gguf");
  const ActivationStats again = ActivationStats::load(folder.path() / "stats.gguf", s);
  for (const ParamSpec& p : model_params(s)) EXPECT_EQ(again.mean_squares(p.name), stats.mean_squares(p.name));
  EXPECT_EQ(again.rows(kEmbeddingName), 3);
}

TEST(Calibration, StatisticsOfAnotherModelAreRefused) {
  const io::TestFolder folder;
  const auto refused = [&](const ModelSpec& s) {
    try {
      ActivationStats::load(folder.path() / "stats.gguf", s);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadData);
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  some_stats(test::wide_spec("mamba")).save(folder.path() / "stats.gguf");
  EXPECT_THAT(refused(test::wide_spec("mamba2")), AllOf(HasSubstr("problems\n"), HasSubstr("another model")));
  EXPECT_THAT(refused(test::wide_spec("mamba", 320)), HasSubstr("wants 320"));
  io::write_gguf(folder.path() / "stats.gguf", {{"general.type", std::string("model")}}, {});
  EXPECT_THAT(refused(test::wide_spec("mamba")), HasSubstr("no activation statistics"));
}

TEST(Calibration, HostileStatisticsAreRefusedByName) {
  const io::TestFolder folder;
  const ModelSpec s = test::wide_spec("mamba");
  const auto file = folder.path() / "stats.gguf";
  some_stats(s).save(file);
  const auto refused = [&](const std::string& changed, float value) {
    std::vector<io::NamedTensor> tensors;
    const auto g = io::Gguf::open(file);
    for (const auto& [name, tensor] : g->tensors()) {
      Tensor t = Tensor::empty(tensor.shape());
      std::copy_n(tensor.f32(), t.numel(), t.f32());
      if (name == changed) std::fill_n(t.f32(), t.numel(), value);
      tensors.push_back({name, t});
    }
    io::write_gguf(folder.path() / "bad.gguf", {{"general.type", std::string("imatrix")}}, tensors);
    try {
      ActivationStats::load(folder.path() / "bad.gguf", s);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadData);
      EXPECT_THAT(e.what(), HasSubstr(changed));
      return true;
    }
    return false;
  };
  const std::string counts = "blk.0.ssm_in.weight.counts", sums = "blk.0.ssm_in.weight.in_sum2";
  for (const float v : {0.0f, 0.5f, 2.5f, -1.0f, 1e30f, std::nanf(""), INFINITY}) EXPECT_TRUE(refused(counts, v)) << v;
  for (const float v : {0.0f, -1.0f, std::nanf(""), INFINITY}) EXPECT_TRUE(refused(sums, v)) << v;
  EXPECT_FALSE(refused(counts, 7));
}

PlannedTensor planned(const Tensor& w, DType type) {
  PlannedTensor p;
  p.name = "w";
  p.file_name = "w";
  p.shape = w.shape();
  p.type = type;
  return p;
}

Tensor gaussian(int64_t N, int64_t K) {
  Rng rng(3);
  Tensor t = Tensor::empty({N, K});
  for (int64_t i = 0; i < t.numel(); ++i) t.f32()[i] = static_cast<float>(rng.normal());
  return t;
}

TEST(Quantize, ErrorsAreRelativeRmsOfWeightsAndOfOutputs) {
  ThreadPool pool(2);
  const Tensor w = gaussian(4, 64);
  ActivationStats stats;
  Tensor x = Tensor::zeros({1, 64});
  for (int64_t k = 0; k < 64; ++k) x.f32()[k] = static_cast<float>(k % 5);
  stats.matmul("w", x);
  const QuantizedTensor q = quantize_tensor(w, planned(w, DType::kQ4_0), &stats, pool);
  const Tensor back = dequantize(q.value);
  double e = 0, n = 0, we = 0, wn = 0;
  for (int64_t i = 0; i < w.numel(); ++i) {
    const double d = static_cast<double>(back.f32()[i]) - static_cast<double>(w.f32()[i]), v = w.f32()[i];
    const double f = std::pow(x.f32()[i % 64], 2);
    e += d * d, n += v * v, we += f * d * d, wn += f * v * v;
  }
  EXPECT_NEAR(q.error.weights, std::sqrt(e / n), 1e-12);
  EXPECT_NEAR(q.error.outputs, std::sqrt(we / wn), 1e-12);
  EXPECT_TRUE(std::isnan(quantize_tensor(w, planned(w, DType::kQ4_0), nullptr, pool).error.outputs));
}

TEST(Quantize, LargeColumnsAreRoundedWithMoreCare) {
  ThreadPool pool(2);
  const Tensor w = gaussian(64, 256);
  ActivationStats stats;
  Tensor x = Tensor::empty({1, 256});
  for (int64_t k = 0; k < 256; ++k) x.f32()[k] = k % 8 == 0 ? 8.0f : 1.0f;
  stats.matmul("w", x);
  const auto outputs = [&](const Tensor& value) {
    const Tensor back = dequantize(value);
    double e = 0;
    for (int64_t i = 0; i < w.numel(); ++i) {
      e += std::pow(static_cast<double>(x.f32()[i % 256]) * static_cast<double>(back.f32()[i] - w.f32()[i]), 2);
    }
    return std::sqrt(e);
  };
  for (const DType t : {DType::kQ4_0, DType::kQ5_0, DType::kQ4_K, DType::kQ6_K}) {
    const double with = outputs(quantize_tensor(w, planned(w, t), &stats, pool).value);
    const double without = outputs(quantize_tensor(w, planned(w, t), nullptr, pool).value);
    EXPECT_LT(with, 0.9 * without) << name_of(t);
  }
}

TEST(Quantize, WhatHasItsTypeAlreadyKeepsItsBits) {
  ThreadPool pool(1);
  const Tensor w = from_f32(gaussian(2, 32), DType::kF16);
  const QuantizedTensor q = quantize_tensor(w, planned(w, DType::kF16), nullptr, pool);
  EXPECT_EQ(q.value.bytes(), w.bytes());
  EXPECT_EQ(q.error.weights, 0);
}

TEST(Quantize, ProgressIsToldWithinATensorAndMayEndTheWork) {
  ThreadPool pool(2);
  const Tensor w = Tensor::zeros({3 << 10, 1 << 10});
  int64_t told = 0, calls = 0;
  const auto count = [&](int64_t n) { told += n, ++calls; };
  quantize_tensor(w, planned(w, DType::kQ8_0), nullptr, pool, count);
  EXPECT_EQ(told, w.numel());
  EXPECT_EQ(calls, 3);
  told = 0;
  quantize_tensor(w, planned(w, DType::kF16), nullptr, pool, count);
  EXPECT_EQ(told, w.numel());
  EXPECT_THROW(quantize_tensor(w, planned(w, DType::kQ8_0), nullptr, pool, [](int64_t) { throw 1; }), int);
}

TEST(Quantize, ValuesBeyondF16AreRefused) {
  ThreadPool pool(1);
  Tensor w = gaussian(2, 20);
  w.f32()[7] = 1e6f;
  try {
    quantize_tensor(w, planned(w, DType::kF16), nullptr, pool);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadData);
    EXPECT_THAT(e.what(), HasSubstr("1 values of w"));
  }
}

}  // namespace
}  // namespace krait::quant
