#include "krait/train/optimizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "krait/core/error.h"

namespace krait::train {
namespace {

constexpr int64_t kBlock = 1 << 14;  // elements of a task

template <class F>
void for_blocks(int64_t n, ThreadPool& pool, F f) {  // f(block, first, stop)
  pool.parallel_for((n + kBlock - 1) / kBlock, [&](int64_t b) { f(b, b * kBlock, std::min((b + 1) * kBlock, n)); });
}

// States by name, zero at first.
class States {
 public:
  States(std::vector<std::string> names, const std::vector<Trained>& trained) : names_(std::move(names)) {
    for (const std::string& name : names_) {
      for (const Trained& t : trained) tensors_[name].push_back(Tensor::zeros(t.value.shape()));
    }
  }
  const std::vector<std::string>& names() const { return names_; }
  Tensor& at(const std::string& name, size_t parameter) { return tensors_.at(name).at(parameter); }

 private:
  std::vector<std::string> names_;
  std::map<std::string, std::vector<Tensor>> tensors_;
};

// AdamW with decoupled weight decay: p -= lr·wd·p first, then the step with the bias-corrected moments.
class AdamW final : public Optimizer {
 public:
  AdamW(const OptimizerOptions& o, const std::vector<Trained>& trained)
      : o_(o), states_({"exp_avg", "exp_avg_sq"}, trained) {}

  std::vector<std::string> state_names() const override { return states_.names(); }
  Tensor& state(const std::string& name, size_t parameter) override { return states_.at(name, parameter); }

  void step(std::vector<Trained>& trained, int64_t step, double lr, double gradient_scale, ThreadPool& pool) override {
    const auto n = static_cast<double>(step);
    const auto b1 = static_cast<float>(o_.beta1), b2 = static_cast<float>(o_.beta2), eps = static_cast<float>(o_.eps);
    const auto rate = static_cast<float>(lr / (1 - std::pow(o_.beta1, n)));
    const auto second = static_cast<float>(1 / std::sqrt(1 - std::pow(o_.beta2, n)));
    const auto scale = static_cast<float>(gradient_scale);
    for (size_t i = 0; i < trained.size(); ++i) {
      const auto keep = static_cast<float>(decays(trained[i].spec) ? 1 - lr * o_.weight_decay : 1);
      float* p = trained[i].value.f32();
      float* m = state("exp_avg", i).f32();
      float* v = state("exp_avg_sq", i).f32();
      const float* g = trained[i].gradient.f32();
      for_blocks(trained[i].value.numel(), pool, [&](int64_t, int64_t first, int64_t stop) {
        for (int64_t e = first; e < stop; ++e) {
          const float d = g[e] * scale;
          m[e] = b1 * m[e] + (1 - b1) * d;
          v[e] = b2 * v[e] + (1 - b2) * d * d;
          p[e] = keep * p[e] - rate * m[e] / (std::sqrt(v[e]) * second + eps);
        }
      });
    }
  }

 private:
  OptimizerOptions o_;
  States states_;
};

// Lion (arXiv 2302.06675): the sign of an interpolated momentum.
class Lion final : public Optimizer {
 public:
  Lion(const OptimizerOptions& o, const std::vector<Trained>& trained) : o_(o), states_({"exp_avg"}, trained) {}

  std::vector<std::string> state_names() const override { return states_.names(); }
  Tensor& state(const std::string& name, size_t parameter) override { return states_.at(name, parameter); }

  void step(std::vector<Trained>& trained, int64_t, double lr, double gradient_scale, ThreadPool& pool) override {
    const auto b1 = static_cast<float>(o_.beta1), b2 = static_cast<float>(o_.beta2), rate = static_cast<float>(lr);
    const auto scale = static_cast<float>(gradient_scale);
    for (size_t i = 0; i < trained.size(); ++i) {
      const auto keep = static_cast<float>(decays(trained[i].spec) ? 1 - lr * o_.weight_decay : 1);
      float* p = trained[i].value.f32();
      float* m = state("exp_avg", i).f32();
      const float* g = trained[i].gradient.f32();
      for_blocks(trained[i].value.numel(), pool, [&](int64_t, int64_t first, int64_t stop) {
        for (int64_t e = first; e < stop; ++e) {
          const float d = g[e] * scale, u = b1 * m[e] + (1 - b1) * d;
          p[e] = keep * p[e] - (u > 0 ? rate : u < 0 ? -rate : 0.0f);
          m[e] = b2 * m[e] + (1 - b2) * d;
        }
      });
    }
  }

 private:
  OptimizerOptions o_;
  States states_;
};

}  // namespace

bool decays(const ParamSpec& p) { return p.role != ParamRole::kVector || p.name.ends_with("conv1d.weight"); }

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& o, const std::vector<Trained>& trained) {
  const auto is_rate = [](double b) { return b >= 0 && b < 1; };
  if (!is_rate(o.beta1) || !is_rate(o.beta2) || !(o.eps > 0) || !(o.weight_decay >= 0)) {
    fail_usage(
        fmt::format("[optimizer] beta1 {}, beta2 {} must lie in [0, 1), eps {} above 0, weight_decay {} not below 0",
                    o.beta1, o.beta2, o.eps, o.weight_decay));
  }
  if (o.name == "adamw") return std::make_unique<AdamW>(o, trained);
  if (o.name == "lion") return std::make_unique<Lion>(o, trained);
  fail_usage("[optimizer] name is '" + o.name + "', expected adamw or lion");
}

double gradient_norm(const std::vector<Trained>& trained, ThreadPool& pool) {
  double total = 0;
  for (const Trained& t : trained) {
    const float* g = t.gradient.f32();
    std::vector<double> sums(static_cast<size_t>((t.gradient.numel() + kBlock - 1) / kBlock));
    for_blocks(t.gradient.numel(), pool, [&](int64_t b, int64_t first, int64_t stop) {
      double s = 0;
      for (int64_t i = first; i < stop; ++i) s += static_cast<double>(g[i]) * static_cast<double>(g[i]);
      sums[static_cast<size_t>(b)] = s;
    });
    for (const double s : sums) total += s;
  }
  return std::sqrt(total);
}

double clip_scale(double norm, double max_norm) { return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1; }

}  // namespace krait::train
