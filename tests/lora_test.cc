// Adapters at inference: what they change, that sequences share nothing but the base, files, merging.
#include <gmock/gmock.h>

#include <fstream>

#include "krait/core/error.h"
#include "krait/infer/engine.h"
#include "krait/io/safetensors.h"
#include "krait/io/test_folder.h"
#include "krait/models/peft.h"
#include "tests/lora_models.h"

namespace krait::test {
namespace {

using testing::HasSubstr;

class Lora : public testing::TestWithParam<std::string> {
 protected:
  ModelSpec spec_ = tiny_spec(GetParam());
  ParamStore params_ = random_params(spec_, 1, DType::kF32, pool());
  std::vector<int32_t> ids_ = random_ids(23, 29, 5);

  Tensor logits(const Adapter& a) const { return all_logits(with_adapters(spec_, params_, {share(a)}), ids_); }
  Tensor base_logits() const { return all_logits(Model(spec_, params_, runtime()), ids_); }
};

// Trap I2: an adapter on any projection acts, as the sum of the weights does.
TEST_P(Lora, ActsOnEveryParameterAsTheMergedWeightsDo) {
  const Tensor base = base_logits();
  for (const AdaptableParam& p : adaptable_params(spec_)) {
    Adapter a = random_adapter(spec_, 1);
    std::erase_if(a.factors, [&](const auto& f) { return f.first != p.name; });
    ASSERT_EQ(a.factors.size(), 1u);
    const Tensor with = logits(a);
    EXPECT_GT(relative_rms(with.f32(), base.f32(), base.numel()), 1e-4) << p.name;
    ModelSpec spec = spec_;
    ParamStore params = params_;
    merge(a, spec, params);
    const Tensor merged = all_logits(Model(spec, params, runtime()), ids_);
    EXPECT_LT(relative_rms(with.f32(), merged.f32(), base.numel()), 2e-5) << p.name;
  }
}

TEST_P(Lora, WithZerosChangesNoBit) {
  Adapter a = random_adapter(spec_, 1);
  for (auto& [name, f] : a.factors) f.B = Tensor::zeros(f.B.shape());
  EXPECT_TRUE(same_bits(logits(a), base_logits()));
}

// Several adapters in one batch, cut into calls: each sequence gets what it gets alone, bit for bit.
TEST_P(Lora, SequencesOfABatchDependOnTheirOwnAdapterAlone) {
  const Adapters all = {share(random_adapter(spec_, 1)), share(random_adapter(spec_, 2, {"in_proj", "conv1d"}))};
  const Model mixed(spec_, params_, runtime(), all);
  const std::vector<int32_t> reads_with = {1, 0, 0, -1, 1};
  SlotStore states(mixed.state_specs(), 5);
  for (int32_t s = 0; s < 5; ++s) mixed.reset_state(states, s, reads_with[static_cast<size_t>(s)]);
  std::vector<Tensor> want;
  for (const int32_t a : reads_with) want.push_back(all_logits(Model(spec_, params_, runtime(), all, a), ids_));
  for (int64_t at = 0, n = 1; at < std::ssize(ids_); at += n, n = std::min<int64_t>(2 * n, std::ssize(ids_) - at)) {
    SeqSpans spans;
    std::vector<int32_t> packed;
    std::vector<int64_t> rows;
    for (int32_t s = 0; s < 5; ++s) {
      packed.insert(packed.end(), ids_.begin() + at, ids_.begin() + at + n);
      spans.add(n, s, reads_with[static_cast<size_t>(s)]);
      rows.push_back(spans.n_tokens() - 1);
    }
    const Tensor got = mixed.forward(packed, spans, states, rows);
    for (int32_t s = 0; s < 5; ++s) {
      EXPECT_TRUE(same_bits(got.narrow(0, s, 1).clone(), want[static_cast<size_t>(s)].narrow(0, at + n - 1, 1).clone()))
          << "sequence " << s << " at " << at + n - 1;
    }
    if (at + n == std::ssize(ids_)) break;
  }
}

TEST_P(Lora, StatesBelongToTheirAdapter) {
  const Adapters all = {share(random_adapter(spec_, 1)), share(random_adapter(spec_, 2))};
  const Model m(spec_, params_, runtime(), all);
  EXPECT_NE(m.fingerprint(0), m.fingerprint(1));
  EXPECT_NE(m.fingerprint(0), m.fingerprint(-1));
  EXPECT_EQ(m.fingerprint(-1), Model(spec_, params_, runtime()).fingerprint());
  EXPECT_EQ(m.fingerprint(1), with_adapters(spec_, params_, {all[1]}).fingerprint());
  StatePool states(m, 2);
  Sequence s(states, 0);
  s.read(ids_);
  EXPECT_THAT(io::message_of(ErrorCode::kBadData, [&] { Sequence(states, s.state(), 1); }), HasSubstr("--lora"));
  Request r;
  r.prompt = {1};
  r.start = std::make_shared<State>(s.state());
  r.adapter = 1;
  EXPECT_THAT(io::message_of(ErrorCode::kBadData, [&] { Engine(m).run(r); }), HasSubstr("--lora"));
  r.adapter = 2;
  EXPECT_THAT(io::message_of(ErrorCode::kUsage, [&] { Engine(m).run(r); }), HasSubstr("adapter 2, the model has 2"));
}

TEST_P(Lora, EngineServesSeveralAtOnce) {
  const Adapters all = {share(random_adapter(spec_, 1)), share(random_adapter(spec_, 2))};
  const Model m(spec_, params_, runtime(), all);
  std::vector<Request> requests;
  for (const int32_t a : {0, -1, 1, 0}) {
    Request r;
    r.prompt = ids_;
    r.adapter = a;
    r.max_new_tokens = 8;
    r.sampler.temperature = 0;
    requests.push_back(r);
  }
  const auto got = Engine(m).run(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(got[i].generations[0].ids, greedy(Model(spec_, params_, runtime(), all, *requests[i].adapter), ids_, 8));
  }
}

TEST_P(Lora, InitialStatesAreWhereASequenceBegins) {
  Adapter a;
  a.name = "tuned";
  const Model base(spec_, params_, runtime());
  const auto specs = base.state_specs();
  for (size_t b = 0; b < specs.size(); ++b) {
    for (const StateTensorSpec& t : specs[b]) {
      if (t.dtype != DType::kF32) continue;
      a.states[spec_.blocks[b].prefix + "." + t.name] = random_tensor(t.shape, b + 7, 0.3);
    }
  }
  const Model m = with_adapters(spec_, params_, {share(a)});
  EXPECT_GT(relative_rms(all_logits(m, ids_).f32(), base_logits().f32(), 32), 1e-3);
  StatePool states(m, 2);
  const State begin = Sequence(states).state(), plain = Sequence(states, -1).state();
  EXPECT_FALSE(begin.model_fingerprint == plain.model_fingerprint);
  EXPECT_TRUE(same_bits(begin.blocks[0].back(), a.states.at(spec_.blocks[0].prefix + "." + specs[0].back().name)));
  a.states["backbone.layers.0.mixer.nothing"] = Tensor::zeros({1});
  EXPECT_THAT(io::message_of(ErrorCode::kBadData, [&] { with_adapters(spec_, params_, {share(a)}); }),
              HasSubstr("no state backbone.layers.0.mixer.nothing"));
}

TEST_P(Lora, FilesGiveItBack) {
  const io::TestFolder folder;
  Adapter a = random_adapter(spec_, 4);
  a.settings.dropout = 0.25;
  a.states[spec_.blocks[0].prefix + ".ssm"] =
      random_tensor(Model(spec_, params_, runtime()).state_specs()[0][1].shape, 3, 1);
  write_adapter(folder / "a4", a);
  const Adapter b = read_adapter(folder / "a4", spec_);
  EXPECT_EQ(b.name, "a4");
  EXPECT_EQ(b.settings.rank, 3);
  EXPECT_EQ(b.settings.alpha, 4.5);
  EXPECT_EQ(b.settings.dropout, 0.25);
  EXPECT_EQ(b.settings.targets, a.settings.targets);
  EXPECT_EQ(hash_of(a, 1), hash_of(b, 1));
}

TEST_P(Lora, SumsOfTwo) {
  const Adapter a = random_adapter(spec_, 1), b = random_adapter(spec_, 2, {"in_proj", "out_proj"});
  ModelSpec spec = spec_;
  ParamStore params = params_;
  merge(a, spec, params);
  Adapter half = b;
  for (auto& [name, f] : half.factors) f.scale *= 0.5F;
  merge(half, spec, params);
  const Tensor want = all_logits(Model(spec, params, runtime()), ids_), got = logits(combined({{a, 1}, {b, 0.5}}));
  EXPECT_LT(relative_rms(got.f32(), want.f32(), want.numel()), 2e-5);
}

INSTANTIATE_TEST_SUITE_P(All, Lora, testing::ValuesIn(tiny_names()), [](const auto& i) { return i.param; });

// The head of a tied model is not the adapter's to change.
TEST(LoraMerge, UntiesAnEmbedding) {
  ModelSpec spec = tiny_spec("mamba2");
  spec.tie_embeddings = true;
  ParamStore params = random_params(spec, 1, DType::kF32, pool());
  const std::vector<int32_t> ids = random_ids(23, 29, 5);
  const Adapter a = random_adapter(spec, 1, {"embedding"});
  const Tensor want = all_logits(with_adapters(spec, params, {share(a)}), ids);
  merge(a, spec, params);
  EXPECT_FALSE(spec.tie_embeddings);
  const Tensor got = all_logits(Model(spec, params, runtime()), ids);
  EXPECT_LT(relative_rms(got.f32(), want.f32(), want.numel()), 2e-5);
}

TEST(LoraMerge, RoundsTheSumOnce) {
  ModelSpec spec = tiny_spec("mamba2");
  ParamStore params = random_params(spec, 1, DType::kBF16, pool());
  const Adapter a = random_adapter(spec, 1, {"out_proj"});
  const std::string name = a.factors.begin()->first;
  const Tensor before = to_f32(params.get(name).value);
  merge(a, spec, params);
  ASSERT_EQ(params.get(name).value.dtype(), DType::kBF16);
  const LowRankFactors& f = a.factors.at(name);
  Tensor sum = before.clone();
  for (int64_t n = 0; n < sum.dim(0); ++n) {
    for (int64_t k = 0; k < sum.dim(1); ++k) {
      float delta = 0;
      for (int64_t i = 0; i < 3; ++i) delta += f.scale * f.B.f32()[n * 3 + i] * f.A.f32()[i * sum.dim(1) + k];
      sum.f32()[n * sum.dim(1) + k] += delta;
    }
  }
  EXPECT_TRUE(same_bits(params.get(name).value, from_f32(sum, DType::kBF16)));
}

class LoraFiles : public testing::Test {
 protected:
  std::string refused(const std::string& from, const std::string& to) {
    std::string s = config_;
    const size_t at = s.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    std::ofstream(folder_ / "a" / kAdapterConfig) << s.replace(at, from.size(), to);
    return io::message_of(ErrorCode::kBadData, [&] { read_adapter(folder_ / "a", spec_); });
  }
  void SetUp() override {
    write_adapter(folder_ / "a", adapter_);
    std::ifstream in(folder_ / "a" / kAdapterConfig);
    config_ = {std::istreambuf_iterator<char>(in), {}};
  }

  const io::TestFolder folder_;
  ModelSpec spec_ = tiny_spec("mamba2");
  Adapter adapter_ = random_adapter(spec_, 1, {"in_proj"});
  std::string config_;
};

TEST_F(LoraFiles, WhatChangesMoreIsRefused) {
  EXPECT_THAT(refused("\"use_dora\": false", "\"use_dora\": true"), HasSubstr("DoRA"));
  EXPECT_THAT(refused("\"bias\": \"none\"", "\"bias\": \"all\""), HasSubstr("bias"));
  EXPECT_THAT(refused("\"LORA\"", "\"IA3\""), HasSubstr("IA3"));
  EXPECT_THAT(refused("\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]"), HasSubstr("modules_to_save"));
  EXPECT_THAT(refused("\"init_lora_weights\": true", "\"init_lora_weights\": \"pissa\""), HasSubstr("own weights"));
}

TEST_F(LoraFiles, ScalesComeFromTheConfiguration) {
  const auto scale = [&](const std::string& from, const std::string& to) {
    std::string s = config_;
    std::ofstream(folder_ / "a" / kAdapterConfig) << s.replace(s.find(from), from.size(), to);
    return read_adapter(folder_ / "a", spec_).factors.begin()->second.scale;
  };
  EXPECT_EQ(scale("\"use_rslora\": false", "\"use_rslora\": true"), static_cast<float>(4.5 / std::sqrt(3.0)));
  EXPECT_EQ(scale("\"alpha_pattern\": {}", "\"alpha_pattern\": {\"layers.0.mixer.in_proj\": 12}"), 4.0F);
  EXPECT_EQ(scale("\"alpha_pattern\": {}", "\"alpha_pattern\": {\"out_proj\": 12}"), 1.5F);
}

TEST_F(LoraFiles, EveryTensorThatDoesNotFitIsNamed) {
  io::write_safetensors(folder_ / "a" / kAdapterWeights,
                        {{"base_model.model.backbone.layers.0.mixer.in_proj.lora_A.weight", Tensor::zeros({3, 16})},
                         {"base_model.model.lm_head.lora_A.weight", Tensor::zeros({3, 16})}},
                        {});
  const std::string said = io::message_of(ErrorCode::kBadData, [&] { read_adapter(folder_ / "a", spec_); });
  EXPECT_THAT(said, HasSubstr("lm_head"));
  EXPECT_THAT(said, HasSubstr("missing: B of backbone.layers.0.mixer.in_proj.weight"));
  Adapter wrong = adapter_;
  wrong.factors.begin()->second.A = Tensor::zeros({3, 15});
  write_adapter(folder_ / "a", wrong);
  EXPECT_THAT(io::message_of(ErrorCode::kBadData, [&] { read_adapter(folder_ / "a", spec_); }), HasSubstr("[3, 15]"));
  EXPECT_THAT(io::message_of(ErrorCode::kFailed, [&] { read_adapter(folder_ / "none", spec_); }),
              HasSubstr("no adapter"));
}

}  // namespace
}  // namespace krait::test
