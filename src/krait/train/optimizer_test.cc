#include "krait/train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>

#include "krait/models/test_specs.h"

namespace krait::train {
namespace {

std::vector<Trained> trained_of(const ModelSpec& spec, float gradient) {
  const ParamStore params = test::tiny_params(spec);
  std::vector<Trained> all;
  for (const ParamSpec& p : model_params(spec)) {
    Tensor g = Tensor::zeros(p.shape);
    std::fill_n(g.f32(), g.numel(), gradient);
    all.push_back({p, params.f32(p.name), g});
  }
  return all;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return std::memcmp(a.bytes(), b.bytes(), static_cast<size_t>(a.nbytes())) == 0;
}

// Trap I3: weight decay must leave out A_log, D, dt_bias, norms and biases, whatever names a generation gives them.
TEST(Optimizer, TrapI3OneStepWithZeroGradientDecaysMatricesOnly) {
  ThreadPool pool(2);
  for (const auto& [name, spec] : test::all_tiny_specs()) {
    for (const char* optimizer : {"adamw", "lion"}) {
      std::vector<Trained> trained = trained_of(spec, 0);
      std::vector<Tensor> before;
      for (const Trained& t : trained) before.push_back(t.value.clone());
      make_optimizer({.name = optimizer, .weight_decay = 0.1}, trained)->step(trained, 1, 0.5, 1, pool);
      std::set<std::string> kept;
      for (size_t i = 0; i < trained.size(); ++i) {
        const std::string& p = trained[i].spec.name;
        const bool matrix = p.ends_with("proj.weight") || p.ends_with("fc1.weight") || p.ends_with("fc2.weight") ||
                            p.ends_with("embedding.weight") || p.ends_with("lm_head.weight") ||
                            p.ends_with("conv1d.weight");
        EXPECT_EQ(same_bits(trained[i].value, before[i]), !matrix) << name << ": " << p;
        if (!matrix) {
          kept.insert(p.substr(p.rfind('.') + 1));
          continue;
        }
        for (int64_t e = 0; e < before[i].numel(); ++e) {
          ASSERT_FLOAT_EQ(trained[i].value.f32()[e], 0.95f * before[i].f32()[e]) << p;
        }
      }
      EXPECT_TRUE(kept.contains("D")) << name;
      EXPECT_TRUE(kept.contains("dt_bias") || kept.contains("bias")) << name;  // Mamba-1: dt_proj.bias
    }
  }
}

// The formula in double, with decay, clipping and bias correction (arXiv 1711.05101).
TEST(Optimizer, AdamWFollowsItsFormula) {
  ThreadPool pool(1);
  std::vector<Trained> trained = trained_of(test::tiny_mamba2(), 0.25f);
  const OptimizerOptions o;
  const auto adamw = make_optimizer(o, trained);
  const float start = trained.front().value.f32()[3];
  double p = static_cast<double>(start), m = 0, v = 0;
  for (int64_t step = 1; step <= 5; ++step) {
    const double g = 0.25 * 0.5, lr = 0.01 * static_cast<double>(step);
    adamw->step(trained, step, lr, 0.5, pool);
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    const double n = static_cast<double>(step);
    p -= lr * o.weight_decay * p;
    p -= lr * (m / (1 - std::pow(o.beta1, n))) / (std::sqrt(v / (1 - std::pow(o.beta2, n))) + o.eps);
  }
  EXPECT_NEAR(static_cast<double>(trained.front().value.f32()[3]), p, 1e-6);
}

TEST(Optimizer, ThreadsChangeNothing) {
  ThreadPool one(1), two(2);
  const ModelSpec spec = test::tiny_mamba3(test::mamba3_settings(), 128);
  std::vector<Trained> a = trained_of(spec, 0.1f), b = trained_of(spec, 0.1f);
  EXPECT_EQ(gradient_norm(a, one), gradient_norm(b, two));
  make_optimizer({}, a)->step(a, 1, 0.1, 1, one);
  make_optimizer({}, b)->step(b, 1, 0.1, 1, two);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(same_bits(a[i].value, b[i].value)) << a[i].spec.name;
}

TEST(Optimizer, ClipScale) {
  EXPECT_EQ(clip_scale(0.5, 1), 1);
  EXPECT_NEAR(clip_scale(4, 1), 0.25, 1e-6);
  EXPECT_EQ(clip_scale(4, 0), 1);
}

}  // namespace
}  // namespace krait::train
