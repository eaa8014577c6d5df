// Training of adapters and initial states: gradients against those of the whole weights, masks of dropout, targets.
#include <gmock/gmock.h>

#include "krait/core/error.h"
#include "krait/io/json.h"
#include "krait/io/test_folder.h"
#include "krait/models/peft.h"
#include "krait/quant/encode.h"
#include "krait/train/lora.h"
#include "krait/train/optimizer.h"
#include "krait/train/train_model.h"
#include "tests/lora_models.h"

namespace krait::test {
namespace {

using testing::HasSubstr;
using train::TrainModel;
using train::TrainModelOptions;

class LoraTraining : public testing::TestWithParam<std::string> {
 protected:
  static data::Batch batch(std::initializer_list<int64_t> lengths, uint64_t seed = 1) {
    data::Batch b;
    for (const int64_t n : lengths) {
      const std::vector<float> ones(static_cast<size_t>(n), 1.0F);
      b.add(random_ids(n, 29, seed), random_ids(n, 29, seed + 100), ones);
      ++seed;
    }
    return b;
  }
  TrainModel model(const Adapter& a, TrainModelOptions o = {}) const {
    o.adapter = a;
    return {spec_, params_, runtime(), o};
  }
  // Of one step over these batches, by the name of the parameter.
  static std::map<std::string, Tensor> gradients(TrainModel& m, const std::vector<data::Batch>& batches,
                                                 int64_t step = 1) {
    m.begin(step);
    for (const data::Batch& b : batches) m.accumulate(b, 0.1);
    m.gradients();
    std::map<std::string, Tensor> g;
    for (const train::Trained& t : m.trained()) g[t.spec.name] = t.gradient;
    return g;
  }
  static void expect_same(const std::map<std::string, Tensor>& a, const std::map<std::string, Tensor>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [name, g] : a) EXPECT_TRUE(same_bits(g, b.at(name))) << name;
  }

  static TrainModelOptions frozen() {  // but for one vector: a model wants something to train
    TrainModelOptions o;
    o.trainable = [](const std::string& name) { return name == "backbone.norm_f.weight"; };
    return o;
  }

  ModelSpec spec_ = tiny_spec(GetParam());
  ParamStore params_ = random_params(spec_, 1, DType::kF32, pool());
};

// [N, K] of dW; the embedding's is stored [K, N].
double at(const Tensor& dw, bool table, int64_t n, int64_t k, int64_t N, int64_t K) {
  return static_cast<double>(dw.f32()[table ? k * N + n : n * K + k]);
}

// dA = scale · Bᵀ dW and dB = scale · dW Aᵀ, with dW that of the merged model (trap I2: none is left out).
TEST_P(LoraTraining, GradientsOfFactorsFollowFromThoseOfTheWeights) {
  const Adapter a = random_adapter(spec_, 1);
  TrainModel lora = model(a);
  const auto got = gradients(lora, {batch({9, 4, 17})});
  EXPECT_EQ(got.size(), 2 * adaptable_params(spec_).size());
  ModelSpec spec = spec_;
  ParamStore merged = params_;
  merge(a, spec, merged);
  TrainModel whole(spec, merged, runtime(), {});
  const auto dw = gradients(whole, {batch({9, 4, 17})});
  for (const auto& [name, f] : a.factors) {
    const int64_t N = f.B.dim(0), K = f.A.dim(1), r = f.rank();
    const bool table = name == kEmbeddingName;
    std::vector<double> dA(static_cast<size_t>(r * K)), dB(static_cast<size_t>(N * r));
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t k = 0; k < K; ++k) {
        const double d = static_cast<double>(f.scale) * at(dw.at(name), table, n, k, N, K);
        for (int64_t i = 0; i < r; ++i) {
          dA[static_cast<size_t>(i * K + k)] += d * static_cast<double>(f.B.f32()[n * r + i]);
          dB[static_cast<size_t>(n * r + i)] += d * static_cast<double>(f.A.f32()[i * K + k]);
        }
      }
    }
    EXPECT_LT(relative_rms(got.at(name + ".lora_A").f32(), dA.data(), r * K), 1e-4) << name;
    EXPECT_LT(relative_rms(got.at(name + ".lora_B").f32(), dB.data(), N * r), 1e-4) << name;
  }
}

TEST_P(LoraTraining, TheSameBitsInPiecesAndWithCheckpoints) {
  Adapter a = random_adapter(spec_, 1);
  a.settings.dropout = 0.4;
  TrainModel m = model(a);
  const auto want = gradients(m, {batch({9, 4})});
  data::Batch first = batch({9}), second;
  {
    const data::Batch both = batch({9, 4});
    const auto part = [&](const auto& v) { return std::span(v).subspan(9); };
    second.add(part(both.ids), part(both.targets), part(both.weights));
  }
  expect_same(gradients(m, {first, second}), want);
  TrainModelOptions o;
  o.checkpoint = true;
  TrainModel checkpointed = model(a, o);
  expect_same(gradients(checkpointed, {batch({9, 4})}), want);
  o = {};
  o.segment = 4;
  TrainModel segmented = model(a, o);
  for (const auto& [name, g] : gradients(segmented, {batch({9, 4})})) {
    EXPECT_LT(relative_rms(g.f32(), want.at(name).f32(), g.numel()), 1e-4) << name;
  }
}

// Masks are a function of seed and step; about so many inputs are left out, and the rest makes up for them.
TEST_P(LoraTraining, DropoutIsDrawnAnewEachStep) {
  Adapter a = random_adapter(spec_, 1, {"in_proj"});
  TrainModel none = model(a);
  a.settings.dropout = 0.3;
  TrainModel m = model(a), again = model(a);
  TrainModelOptions o;
  o.dropout_seed = 7;
  TrainModel other = model(a, o);
  const auto b = {batch({200})};
  const auto first = gradients(m, b, 1);
  expect_same(gradients(again, b, 1), first);
  const std::string name = "backbone.layers.0.mixer.in_proj.weight.lora_A";
  EXPECT_FALSE(same_bits(gradients(m, b, 2).at(name), first.at(name)));
  EXPECT_FALSE(same_bits(gradients(other, b, 1).at(name), first.at(name)));
  EXPECT_EQ(m.evaluate(*b.begin()).nll, none.evaluate(*b.begin()).nll);
}

// The change of the loss along the gradient of an initial state.
TEST_P(LoraTraining, InitialStatesLearn) {
  Adapter a;
  a.name = "states";
  train::add_initial_states(a, Model(spec_, params_, runtime()));
  EXPECT_GE(a.states.size(), 4u);
  for (auto& [name, t] : a.states) t = random_tensor(t.shape(), 5, 0.2);
  const data::Batch b = batch({9, 4});
  TrainModel m = model(a);
  const auto g = gradients(m, {b});
  EXPECT_EQ(g.size(), a.states.size());
  for (train::Trained& t : m.trained()) {
    double norm = 0;
    for (int64_t i = 0; i < t.value.numel(); ++i) norm += std::pow(static_cast<double>(t.gradient.f32()[i]), 2);
    EXPECT_GT(norm, 0) << t.spec.name;
    const Tensor before = t.value.clone();
    const auto loss = [&](double times) {
      for (int64_t i = 0; i < t.value.numel(); ++i) {
        t.value.f32()[i] = before.f32()[i] + static_cast<float>(times * static_cast<double>(t.gradient.f32()[i]));
      }
      m.changed();
      return 0.1 * m.evaluate(b).nll;
    };
    const auto slope = [&](double length) {  // long enough for the loss to change by more than its rounding
      const double step = length / std::sqrt(norm);
      return (loss(step) - loss(-step)) / (2 * step);
    };
    const double extrapolated = (4 * slope(0.008) - slope(0.016)) / 3;  // without the error of second order
    loss(0);
    EXPECT_NEAR(extrapolated / norm, 1, 0.02) << t.spec.name;
  }
}

// A base in blocks stays as it is; only the factors learn, and the loss falls.
TEST_P(LoraTraining, LearnsOnAQuantizedBase) {
  ModelSpec spec = spec_;
  ParamStore params = params_;
  for (const ParamSpec& p : model_params(spec)) {
    if (p.role != ParamRole::kMatmul || p.shape[1] % 32 != 0) continue;
    const Tensor w = params.get(p.name).value;
    params.set(p.name, {quant::encode(w, DType::kQ8_0, {}, pool()), false});
  }
  LoraSettings settings;
  settings.rank = 8;
  settings.targets = {"in_proj", "out_proj"};
  TrainModelOptions o;
  o.adapter = train::new_adapter(spec, settings, 1);
  TrainModel m(spec, params, runtime(), o);
  EXPECT_EQ(m.trained().size(), 8u);
  const data::Batch b = batch({12, 12});
  const double before = m.evaluate(b).mean();
  EXPECT_EQ(before, TrainModel(spec, params, runtime(), frozen()).evaluate(b).mean());  // B is zero
  const auto optimizer = train::make_optimizer({}, m.trained());
  for (int64_t i = 1; i <= 60; ++i) {
    gradients(m, {b}, i);
    optimizer->step(m.trained(), i, 1e-2, 1, pool());
    m.changed();
  }
  EXPECT_LT(m.evaluate(b).mean(), before - 0.5);
  for (const auto& [name, p] : params.all()) EXPECT_TRUE(same_bits(m.params().get(name).value, p.value)) << name;
}

INSTANTIATE_TEST_SUITE_P(All, LoraTraining, testing::ValuesIn(tiny_names()), [](const auto& i) { return i.param; });

// Trap I1: a target that names nothing is an error, and what is trained is told.
TEST(LoraTargets, NameWhatPeftsDo) {
  const ModelSpec spec = tiny_spec("mamba1");
  const auto count = [&](const std::vector<std::string>& targets, bool pattern = false) {
    return train::match_targets(spec, targets, pattern).size();
  };
  EXPECT_EQ(count({"in_proj", "out_proj"}), 4u);
  EXPECT_EQ(count({"x_proj", "dt_proj", "conv1d"}), 6u);
  EXPECT_EQ(count({"embeddings"}), 1u);
  EXPECT_EQ(count({"embedding"}), 1u);
  EXPECT_EQ(count({"all-linear"}), 8u);
  EXPECT_EQ(count({"layers.1.mixer.in_proj"}), 1u);
  EXPECT_EQ(count({R"(backbone\.layers\.\d+\.mixer\.(in|out)_proj)"}, true), 4u);
  EXPECT_EQ(count({"in_proj", "backbone.layers.0.mixer.in_proj"}), 2u);
}

TEST(LoraTargets, ThatNameNothingAreErrors) {
  const ModelSpec spec = tiny_spec("mamba2");
  const auto said = [&](const std::vector<std::string>& targets, bool pattern = false) {
    return io::message_of(ErrorCode::kUsage, [&] { train::match_targets(spec, targets, pattern); });
  };
  EXPECT_THAT(said({"in_proj", "q_proj", "v_proj"}), HasSubstr("'q_proj', 'v_proj' names nothing"));
  EXPECT_THAT(said({"x_proj"}), HasSubstr("the model has embeddings, in_proj, conv1d, out_proj"));
  EXPECT_THAT(said({"proj"}), HasSubstr("names nothing"));
  EXPECT_THAT(said({"lm_head"}), HasSubstr("names nothing"));
  EXPECT_THAT(said({".*k_proj"}, true), HasSubstr("names nothing"));
  EXPECT_THAT(said({"("}, true), HasSubstr("no regular expression"));
  EXPECT_THAT(said({}), HasSubstr("no targets"));
}

// exclude takes away what targets name, in the same two ways; both are written as peft reads them.
TEST(LoraTargets, AreExcludedAndWrittenForPeft) {
  const ModelSpec spec = tiny_spec("mamba1");
  const auto modules = [&](const LoraSettings& s) {
    const Adapter a = train::new_adapter(spec, s, 1);
    std::vector<std::string> names;
    for (const auto& [name, f] : a.factors) names.push_back(name);
    return names;
  };
  LoraSettings s;
  s.targets = {"in_proj", "out_proj"};
  s.exclude = {"layers.0.mixer.in_proj", "out_proj"};
  EXPECT_EQ(modules(s), (std::vector<std::string>{"backbone.layers.1.mixer.in_proj.weight"}));
  s.targets = {R"(backbone\.layers\.\d+\.mixer\.(in|out)_proj)"};
  s.targets_are_pattern = true;
  s.exclude = {R"(.*\.0\..*)"};
  s.exclude_is_pattern = true;
  EXPECT_EQ(modules(s), (std::vector<std::string>{"backbone.layers.1.mixer.in_proj.weight",
                                                  "backbone.layers.1.mixer.out_proj.weight"}));
  const io::TestFolder folder;
  write_adapter(folder.path(), train::new_adapter(spec, s, 1));
  const auto config = [&] { return io::Json::parse(io::read_text(folder / kAdapterConfig), "config"); };
  EXPECT_EQ(config().at("target_modules").as_string(), s.targets[0]);
  EXPECT_EQ(config().at("exclude_modules").as_string(), s.exclude[0]);
  const LoraSettings read = read_adapter(folder.path(), spec).settings;
  EXPECT_TRUE(read.targets_are_pattern && read.exclude_is_pattern);
  EXPECT_EQ(read.exclude, s.exclude);

  LoraSettings all;
  all.targets = {"all-linear", "embeddings"};
  all.exclude = {"x_proj"};
  write_adapter(folder.path(), train::new_adapter(spec, all, 1));
  EXPECT_EQ(config().at("target_modules").dump(), R"(["in_proj", "x_proj", "dt_proj", "out_proj", "embeddings"])");
  EXPECT_EQ(config().at("exclude_modules").dump(), R"(["x_proj"])");

  const auto said = [&] { return io::message_of(ErrorCode::kUsage, [&] { train::new_adapter(spec, s, 1); }); };
  s.exclude = {"(in|out)_proj"};
  EXPECT_THAT(said(), HasSubstr("exclude: '(in|out)_proj' names none of the targets"));
  s.exclude = {".*"};
  EXPECT_THAT(said(), HasSubstr("nothing is left"));
  s.targets = {"in_proj"};
  EXPECT_THAT(said(), HasSubstr("a list names modules"));
}

TEST(LoraTargets, AreDescribed) {
  const ModelSpec spec = tiny_spec("mamba2");
  LoraSettings s;
  s.rank = 4;
  s.targets = {"in_proj"};
  const std::string text = train::describe(train::new_adapter(spec, s, 1), spec);
  EXPECT_THAT(text, HasSubstr("2 of 7 modules"));
  EXPECT_THAT(text, HasSubstr("in_proj         2 of 2"));
  s.rank = 0;
  EXPECT_THAT(io::message_of(ErrorCode::kUsage, [&] { train::new_adapter(spec, s, 1); }), HasSubstr("rank is 0"));
  s.rank = 4;
  s.dropout = 1;
  EXPECT_THAT(io::message_of(ErrorCode::kUsage, [&] { train::new_adapter(spec, s, 1); }), HasSubstr("dropout is 1"));
}

}  // namespace
}  // namespace krait::test
