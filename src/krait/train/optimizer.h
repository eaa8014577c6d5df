// Optimizers: from gradients to new parameters. All arithmetic is f32, elementwise and in one order: results do not
// depend on the number of threads.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "krait/core/thread_pool.h"
#include "krait/train/train_model.h"

namespace krait::train {

struct OptimizerOptions {
  std::string name = "adamw";  // adamw or lion
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;
};

// Whether weight decay acts on it: matrices, tables and the convolution; not A_log, D, dt_bias, norms, biases and
// initial states (spec/mamba.md §9).
bool decays(const ParamSpec&);

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // The step-th update (from 1), with gradients times `gradient_scale`.
  virtual void step(std::vector<Trained>&, int64_t step, double lr, double gradient_scale, ThreadPool&) = 0;
  // Names of the states kept for each parameter ("exp_avg", …), and the tensors, made when first asked for:
  // [parameter].
  virtual std::vector<std::string> state_names() const = 0;
  virtual Tensor& state(const std::string& name, size_t parameter) = 0;
};

// Throws kUsage on an unknown name or numbers out of range. `trained`: the parameters it will be called with.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions&, const std::vector<Trained>& trained);

// Global L2 norm of the gradients, summed in f64.
double gradient_norm(const std::vector<Trained>&, ThreadPool&);

// What gradients are multiplied by so that their norm is at most max_norm: min(1, max_norm / (norm + 1e-6)).
// max_norm 0: no clipping.
double clip_scale(double norm, double max_norm);

}  // namespace krait::train
