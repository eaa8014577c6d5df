#include "krait/quant/mix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "krait/core/error.h"
#include "krait/quant/test_specs.h"

namespace krait::quant {
namespace {

using testing::HasSubstr;

std::vector<PlannedTensor> plan_of(const ModelSpec& s, const std::string& mix, const MixOptions& o = {}) {
  return plan(s, test::random_store(s), find_mix(mix), o);
}

const PlannedTensor& find(const std::vector<PlannedTensor>& plan, const std::string& file_name) {
  for (const PlannedTensor& t : plan) {
    if (t.file_name == file_name) return t;
  }
  throw std::runtime_error("no " + file_name);
}

std::string usage_error(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage);
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

TEST(Mix, VectorsStayF32AndEveryTensorHasAReason) {
  for (const char* architecture : {"mamba", "mamba2", "mamba3"}) {
    const ModelSpec s = test::wide_spec(architecture);
    for (const Mix& m : mixes()) {
      const auto p = plan_of(s, m.name);
      ASSERT_EQ(p.size(), model_params(s).size());
      for (const PlannedTensor& t : p) {
        EXPECT_NE(t.reason, "") << t.file_name;
        EXPECT_EQ(t.type == DType::kF32, t.vector) << m.name << " " << t.file_name;
      }
    }
  }
  const auto p = plan_of(test::wide_spec("mamba"), "Q4_K_M");
  for (const char* name : {"blk.0.ssm_a", "blk.0.ssm_d", "blk.0.ssm_conv1d.weight", "blk.1.ssm_dt.bias",
                           "blk.1.attn_norm.weight", "output_norm.weight"}) {
    EXPECT_EQ(find(p, name).type, DType::kF32) << name;
  }
}

TEST(Mix, TheBaseTypeIsWhatTheNameSays) {
  const auto p = plan_of(test::wide_spec("mamba2"), "Q4_K_S");
  EXPECT_EQ(find(p, "blk.0.ssm_out.weight").type, DType::kQ4_K);
  EXPECT_EQ(find(p, "token_embd.weight").type, DType::kQ6_K);
  EXPECT_EQ(find(plan_of(test::wide_spec("mamba2"), "q8_0"), "blk.1.ssm_in.weight").type, DType::kQ8_0);
  EXPECT_THAT(usage_error([] { find_mix("Q4_K_XXL"); }), HasSubstr("Q4_K_M"));
  EXPECT_THAT(usage_error([] { parse_type("q9"); }), HasSubstr("q8_0"));
}

TEST(Mix, TheFirstLayersOfAnMMixGetMoreBits) {
  ModelSpec s = test::wide_spec("mamba2");
  auto p = plan_of(s, "Q4_K_M");
  EXPECT_EQ(find(p, "blk.0.ssm_in.weight").type, DType::kQ6_K);
  EXPECT_EQ(find(p, "blk.0.ssm_out.weight").type, DType::kQ6_K);
  EXPECT_EQ(find(p, "blk.1.ssm_in.weight").type, DType::kQ4_K);
  s.n_layer = 32;  // a sixteenth of the layers
  p = plan_of(s, "Q4_K_M");
  EXPECT_EQ(find(p, "blk.1.ssm_in.weight").type, DType::kQ6_K);
}

// llama.cpp's quantizer refuses rows of 48 as Q8_0.
TEST(Mix, TrapD1_RowsOfEveryLengthGetAType) {
  for (const int64_t dt_rank : {1, 16, 48, 50}) {
    const ModelSpec s = test::wide_spec("mamba", 320, dt_rank);
    for (const Mix& m : mixes()) {
      for (const bool pure : {false, true}) {
        for (const PlannedTensor& t : plan_of(s, m.name, {pure, {}})) {
          EXPECT_EQ(t.shape[-1] % block_of(t.type).elements, 0) << m.name << " " << t.file_name;
        }
        EXPECT_EQ(find(plan_of(s, m.name, {pure, {}}), "blk.0.ssm_dt.weight").type, DType::kBF16) << dt_rank;
      }
    }
  }
  EXPECT_EQ(find(plan_of(test::wide_spec("mamba", 256, 64), "Q8_0"), "blk.0.ssm_dt.weight").type, DType::kQ8_0);
}

TEST(Mix, TrapD2_WhatMakesDtKeepsEightBitsOrIsWarnedOf) {
  for (const Mix& m : mixes()) {
    const auto p = plan_of(test::wide_spec("mamba"), m.name);
    for (const char* name : {"blk.0.ssm_x.weight", "blk.1.ssm_dt.weight"}) {
      EXPECT_GE(find(p, name).bits_per_weight(), 8) << m.name;
      EXPECT_EQ(find(p, name).warning, "") << m.name;
    }
  }
  const MixOptions low{false, {{"ssm_x", DType::kQ4_0}}};
  EXPECT_THAT(find(plan_of(test::wide_spec("mamba"), "Q8_0", low), "blk.0.ssm_x.weight").warning, HasSubstr("dt"));
  for (const char* architecture : {"mamba2", "mamba3"}) {  // dt is some rows of in_proj
    const ModelSpec s = test::wide_spec(architecture);
    EXPECT_THAT(find(plan_of(s, "Q4_K_M"), "blk.1.ssm_in.weight").warning, HasSubstr("4.50 bits")) << architecture;
    EXPECT_EQ(find(plan_of(s, "Q8_0"), "blk.1.ssm_in.weight").warning, "") << architecture;
    EXPECT_EQ(find(plan_of(s, "Q4_K_M"), "blk.1.ssm_out.weight").warning, "") << architecture;
  }
}

TEST(Mix, TrapD6_EveryFallbackIsMarkedAndSaysWhy) {
  const auto p = plan_of(test::wide_spec("mamba", 320, 20), "Q4_K_M");
  for (const PlannedTensor& t : p) {
    if (t.vector) continue;
    const bool changed = t.file_name != "blk.0.ssm_x.weight" && t.file_name != "blk.1.ssm_x.weight";
    EXPECT_EQ(t.fallback, changed) << t.file_name;  // 320, 640 and 20 fit no block of 256, 640 fits one of 32
    EXPECT_EQ(t.reason.find("no multiple of") != std::string::npos, changed) << t.file_name;
  }
  EXPECT_EQ(find(p, "blk.1.ssm_out.weight").type, DType::kQ5_0);
  for (const PlannedTensor& t : plan_of(test::wide_spec("mamba2"), "Q4_K_M")) EXPECT_FALSE(t.fallback) << t.file_name;
}

TEST(Mix, OverridesWinInTheirOrder) {
  const ModelSpec s = test::wide_spec("mamba2");
  const auto p = plan_of(s, "Q4_K_M", {false, {{"ssm_out", DType::kQ6_K}, {"blk\\.1\\.ssm_out", DType::kF16}}});
  EXPECT_EQ(find(p, "blk.0.ssm_out.weight").type, DType::kQ6_K);
  EXPECT_EQ(find(p, "blk.1.ssm_out.weight").type, DType::kF16);
  EXPECT_THAT(find(p, "blk.1.ssm_out.weight").reason, HasSubstr("--tensor-type"));
  const auto error = [&](const char* pattern, DType type) {
    return usage_error([&] { plan_of(s, "Q8_0", {false, {{pattern, type}}}); });
  };
  EXPECT_THAT(error("(", DType::kQ8_0), HasSubstr("regular expression"));
  EXPECT_THAT(error("ssm_a$", DType::kQ8_0), HasSubstr("matches no matrix"));
  EXPECT_THAT(usage_error([&] { plan_of(test::wide_spec("mamba", 320), "Q8_0", {false, {{"ssm_in", DType::kQ4_K}}}); }),
              HasSubstr("320"));
}

TEST(Mix, HostilePatternsAreRefusedOrEndSoon) {
  const ModelSpec s = test::wide_spec("mamba2");
  const auto error = [&](const std::string& pattern) {
    return usage_error([&] { plan_of(s, "Q8_0", {false, {{pattern, DType::kQ8_0}}}); });
  };
  EXPECT_THAT(error(std::string(100'000, '(')), HasSubstr("at most 200"));
  EXPECT_THAT(error("(a?){50000}"), HasSubstr("repeats"));
  EXPECT_THAT(error("((((a{99}){99}){99}){99})"), HasSubstr("repeats"));
  EXPECT_THAT(error("a{99999999999999999999}"), HasSubstr("repeats"));
  EXPECT_THAT(error(std::string(100, '(') + std::string(100, ')') + "!"), HasSubstr("at most 200"));
  EXPECT_THAT(error("(([a-z0-9_.]+)+)+!"), HasSubstr("matches no matrix"));  // backtracking would not end
  EXPECT_THAT(error("(.*.*.*.*.*.*.*.*.*.*.*.*.*.*.*.*)*!"), HasSubstr("matches no matrix"));
  const auto p = plan_of(s, "Q8_0", {false, {{R"(^blk\.[0-9]{1,2}\.ssm_out)", DType::kF16}}});
  EXPECT_EQ(find(p, "blk.1.ssm_out.weight").type, DType::kF16);
}

TEST(Mix, TrapD6_FallbacksKeepBF16AndTheFileIsNamedAfterWhatItHolds) {
  const ModelSpec narrow = test::wide_spec("mamba2", 20);
  const auto half = [&](DType from) {
    const auto p = plan(narrow, test::random_store(narrow, from), find_mix("Q8_0"), {});
    EXPECT_FALSE(file_type_of(find_mix("Q8_0"), p).has_value());
    return find(p, "blk.0.ssm_in.weight").type;
  };
  EXPECT_EQ(half(DType::kBF16), DType::kBF16);
  EXPECT_EQ(half(DType::kF32), DType::kF16);
  for (const Mix& m : mixes()) EXPECT_EQ(file_type_of(m, plan_of(test::wide_spec("mamba2"), m.name)), m.file_type);
}

TEST(Mix, PureIsTheBaseTypeEverywhere) {
  for (const PlannedTensor& t : plan_of(test::wide_spec("mamba2"), "Q4_K_M", {true, {}})) {
    EXPECT_EQ(t.type, t.vector ? DType::kF32 : DType::kQ4_K) << t.file_name;
  }
}

TEST(Mix, SizesAreThoseOfTheBlocks) {
  const auto p = plan_of(test::wide_spec("mamba2"), "Q8_0");
  EXPECT_EQ(find(p, "token_embd.weight").bytes(), 32 * 256 / 32 * 34);
  EXPECT_DOUBLE_EQ(find(p, "token_embd.weight").bits_per_weight(), 8.5);
  int64_t sum = 0;
  for (const PlannedTensor& t : p) sum += t.bytes();
  EXPECT_EQ(planned_bytes(p), sum);
}

}  // namespace
}  // namespace krait::quant
