#include "krait/models/presets.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "krait/core/error.h"
#include "krait/models/test_specs.h"

namespace krait::test {
namespace {

struct Statistics {
  double mean = 0, stddev = 0, low = 0, high = 0;
  int64_t n = 0;
};

Statistics statistics(const Tensor& t, const std::function<double(double)>& of = [](double v) { return v; }) {
  Statistics s;
  s.n = t.numel();
  s.low = 1e300;
  s.high = -1e300;
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < s.n; ++i) {
    const double v = of(static_cast<double>(t.f32()[i]));
    sum += v;
    squares += v * v;
    s.low = std::min(s.low, v);
    s.high = std::max(s.high, v);
  }
  s.mean = sum / static_cast<double>(s.n);
  s.stddev = std::sqrt(std::max(0.0, squares / static_cast<double>(s.n) - s.mean * s.mean));
  return s;
}

// Uniform on [lo, hi]: inside it, reaching near both ends, with its mean and deviation within five standard errors.
void expect_uniform(const Statistics& s, double lo, double hi, const std::string& what) {
  const double width = hi - lo, n = static_cast<double>(s.n);
  EXPECT_GE(s.low, lo - 1e-6 * width) << what;
  EXPECT_LE(s.high, hi + 1e-6 * width) << what;
  EXPECT_NEAR(s.low, lo, 12 * width / n) << what;
  EXPECT_NEAR(s.high, hi, 12 * width / n) << what;
  EXPECT_NEAR(s.mean, (lo + hi) / 2, 5 * width / std::sqrt(12 * n)) << what;
  EXPECT_NEAR(s.stddev, width / std::sqrt(12.0), 5 * width * std::sqrt(1.0 / 180 / n) * std::sqrt(3.0)) << what;
}

void expect_all(const Tensor& t, double v, const std::string& what) {
  const Statistics s = statistics(t);
  EXPECT_EQ(s.low, v) << what;
  EXPECT_EQ(s.high, v) << what;
}

// The initialisation of one tensor by name, written down from the specification, not from the mixers' tables.
void check_tensor(const ModelSpec& m, const std::string& name, const Tensor& t) {
  const MixerConfig& c = m.blocks.front().config;
  const auto number = [&](const char* key) { return c.number(key); };
  const double D = static_cast<double>(m.d_model);
  const auto ends = [&](const char* suffix) { return name.ends_with(suffix); };
  const auto fan = [&](double fan_in) { return 1 / std::sqrt(fan_in); };
  const double residual = std::sqrt(static_cast<double>(m.n_layer));  // √n_layer with and without MLPs (§1.5)
  if (name == kEmbeddingName) {
    const Statistics s = statistics(t);
    EXPECT_NEAR(s.mean, 0, 5 * 0.02 / std::sqrt(static_cast<double>(s.n))) << name;
    EXPECT_NEAR(s.stddev, 0.02, 5 * 0.02 / std::sqrt(2.0 * static_cast<double>(s.n))) << name;
  } else if (name == kHeadName || ends("in_proj.weight") || ends("fc1.weight")) {
    expect_uniform(statistics(t), -fan(D), fan(D), name);
  } else if (ends("x_proj.weight")) {
    expect_uniform(statistics(t), -fan(number("d_inner")), fan(number("d_inner")), name);
  } else if (ends("dt_proj.weight")) {
    const double bound = fan(number("dt_rank")) * number("dt_scale");
    expect_uniform(statistics(t), -bound, bound, name);
  } else if (ends("out_proj.weight")) {
    const double bound = fan(number("d_inner")) / residual;
    expect_uniform(statistics(t), -bound, bound, name);
  } else if (ends("fc2.weight")) {
    const double bound = fan(m.blocks[1].config.number("d_hidden")) / residual;
    expect_uniform(statistics(t), -bound, bound, name);
  } else if (ends("conv1d.weight") || ends("conv1d.bias")) {
    expect_uniform(statistics(t), -fan(number("d_conv")), fan(number("d_conv")), name);
  } else if (ends("dt_proj.bias") || ends("dt_bias")) {  // softplus of it is log-uniform in [dt_min, dt_max]
    const auto log_dt = [](double b) { return std::log(std::log1p(std::exp(b))); };
    expect_uniform(statistics(t, log_dt), std::log(number("dt_min")), std::log(number("dt_max")), name);
  } else if (ends("A_log") && t.rank() == 2) {
    for (int64_t i = 0; i < t.numel(); ++i) EXPECT_FLOAT_EQ(t.f32()[i], std::log(static_cast<float>(i % t.dim(1) + 1)));
  } else if (ends("A_log")) {
    expect_uniform(statistics(t, [](double v) { return std::exp(v); }), number("A_init_min"), number("A_init_max"),
                   name);
  } else if (ends("mimo_x") || ends("mimo_o")) {
    expect_all(t, static_cast<double>(1 / static_cast<float>(number("mimo_rank"))), name);
  } else if (ends(".in_proj.bias") || ends(".out_proj.bias") || ends("init_states")) {
    expect_all(t, 0, name);
  } else {
    const bool one = ends(".D") || ends("norm.weight") || ends("norm2.weight") || ends("norm_f.weight") ||
                     ends("B_bias") || ends("C_bias") || ends("mimo_z");
    ASSERT_TRUE(one) << name << " is not in this test";
    expect_all(t, 1, name);
  }
}

ModelSpec wide(ModelSpec s, const std::function<void(ModelSpec&)>& push) {
  s.d_model = 96;
  s.n_layer = 6;
  s.blocks.clear();
  push(s);
  return s;
}

std::vector<ModelSpec> statistics_specs() {
  std::vector<ModelSpec> all;
  all.push_back(wide(shell("mamba", 500), [](ModelSpec& s) {
    Mamba1Settings m;
    m.d_inner = 192;
    m.dt_rank = 6;
    m.bias = true;
    m.dt_scale = 0.5;
    for (int64_t i = 0; i < s.n_layer; ++i) push_mamba1(s, i, m);
  }));
  all.push_back(wide(shell("mamba2", 500), [](ModelSpec& s) {
    Mamba2Settings m = mamba2_settings();
    m.d_inner = m.d_ssm = 192;
    m.headdim = 1;
    m.n_heads = 192;
    m.d_conv = 3;
    m.learned_initial_state = m.bias = true;
    m.dt_min = 0.002;
    m.dt_max = 0.5;
    m.A_init_min = 0.25;
    m.A_init_max = 2;
    for (int64_t i = 0; i < s.n_layer; ++i) push_mamba2(s, i, m);
  }));
  all.back().tie_embeddings = false;
  all.push_back(wide(shell("mamba3", 500), [](ModelSpec& s) {
    Mamba3Settings m = mamba3_settings();
    m.d_inner = 192;
    m.headdim = 1;
    m.n_heads = 192;
    m.is_mimo = m.is_outproj_norm = true;
    for (int64_t i = 0; i < s.n_layer; ++i) push_mamba3(s, i, m);
    interleave_mlp(s, 128);
  }));
  return all;
}

// Trap C13: every tensor's distribution, dt above all, and the divisor √n_layer applied once.
TEST(RandomParams, TrapC13_StatisticsOfEveryTensor) {
  ThreadPool pool(2);
  for (const ModelSpec& spec : statistics_specs()) {
    const ParamStore params = random_params(spec, 1, DType::kF32, pool);
    for (const ParamSpec& p : model_params(spec)) check_tensor(spec, p.name, params.get(p.name).value);
  }
}

TEST(RandomParams, DtBelowItsFloorIsRaised) {
  ThreadPool pool(1);
  ModelSpec spec = tiny_mamba2();
  for (SubBlockSpec& b : spec.blocks) b.config.set("dt_init_floor", 0.1);
  const Tensor t = random_params(spec, 1, DType::kF32, pool).get(layer_prefix(0) + ".mixer.dt_bias").value;
  for (int64_t i = 0; i < t.numel(); ++i) EXPECT_NEAR(std::log1p(std::exp(t.f32()[i])), 0.1f, 1e-6);
}

TEST(RandomParams, AFunctionOfSeedAlone) {
  ThreadPool one(1), two(2);
  const ModelSpec spec = statistics_specs()[1];
  const ParamStore a = random_params(spec, 7, DType::kBF16, one), b = random_params(spec, 7, DType::kBF16, two);
  const ParamStore c = random_params(spec, 8, DType::kBF16, two);
  for (const ParamSpec& p : model_params(spec)) {
    const Tensor &x = a.get(p.name).value, &y = b.get(p.name).value;
    EXPECT_EQ(x.dtype(), p.role == ParamRole::kVector ? DType::kF32 : DType::kBF16);
    EXPECT_TRUE(std::equal(x.bytes(), x.bytes() + x.nbytes(), y.bytes())) << p.name;
  }
  const Tensor &x = a.get(kEmbeddingName).value, &z = c.get(kEmbeddingName).value;
  EXPECT_FALSE(std::equal(x.bytes(), x.bytes() + x.nbytes(), z.bytes()));
}

// No two tensors of a model are drawn from the same numbers.
TEST(RandomParams, LayersDiffer) {
  ThreadPool pool(1);
  const ParamStore params = random_params(tiny_mamba2(), 1, DType::kF32, pool);
  const Tensor a = params.f32(layer_prefix(0) + ".mixer.in_proj.weight"),
               b = params.f32(layer_prefix(1) + ".mixer.in_proj.weight");
  EXPECT_FALSE(std::equal(a.f32(), a.f32() + a.numel(), b.f32()));
}

TEST(Presets, EveryPublishedShapeCountsItsParameters) {
  // spec/mamba.md §1.7.
  const std::vector<std::pair<const char*, int64_t>> published = {
      {"mamba-130m", 129135360},       {"mamba-370m", 371516416},          {"mamba-790m", 793204224},
      {"mamba-1.4b", 1372178432},      {"mamba-2.8b", 2768345600},         {"mamba2-130m", 128989632},
      {"mamba2-370m", 368346624},      {"mamba2-780m", 780161280},         {"mamba2-1.3b", 1343757312},
      {"mamba2-2.7b", 2702599680},     {"mamba-codestral-7b", 7285403648}, {"mamba3-siso-187m", 186849600},
      {"mamba3-mimo-187m", 187291968}, {"mamba3-siso-1.5b", 1494723584},   {"mamba3-mimo-1.5b", 1497082880}};
  for (const auto& [name, want] : published) {
    int64_t n = 0;
    for (const ParamSpec& p : model_params(preset(name))) n += p.shape.numel();
    EXPECT_EQ(n, want) << name;
  }
  for (const std::string& name : preset_names()) EXPECT_GT(model_params(preset(name)).size(), 2u) << name;
  EXPECT_THROW(preset("mamba-9b"), Error);
}

}  // namespace
}  // namespace krait::test
