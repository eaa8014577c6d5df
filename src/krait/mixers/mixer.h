// Mixer: one sub-block's function [T, D] -> [T, D] over a packed batch, with carried state. One forward serves
// training, prefill and decode; the ops below it pick the algorithm.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "krait/ops/basic.h"
#include "krait/ops/recurrence.h"
#include "krait/spec/mixer_config.h"
#include "krait/spec/param_spec.h"

namespace krait {

// One tensor of one sequence's state.
struct StateTensorSpec {
  std::string name;  // "conv", "ssm", …
  Shape shape;
  DType dtype = DType::kF32;
  bool operator==(const StateTensorSpec& o) const { return name == o.name && shape == o.shape && dtype == o.dtype; }
};
using StateSpec = std::vector<StateTensorSpec>;  // empty: the mixer keeps nothing

// A sub-block's state for all slots: one tensor [n_slots, ...shape] for each entry of its StateSpec, in that order.
using StateView = std::vector<Tensor>;

// A mixer's own parameters, as loaded; names as in its ParamSpecs.
class ParamSource {
 public:
  virtual ~ParamSource() = default;
  virtual bool has(const std::string& name) const = 0;
  virtual Tensor f32(const std::string& name) const = 0;      // contiguous f32 copy
  virtual Tensor neg_exp(const std::string& name) const = 0;  // −exp(value), f32 (A from A_log)
  virtual Weight matmul(const std::string& name) const = 0;   // packed for the backend
  virtual ConvTaps taps(const std::string& name) const;       // [W, C] of a convolution's weight [C, 1, W]
  virtual Tape* tape() const { return nullptr; }              // of a model made for training
};

class Mixer {
 public:
  virtual ~Mixer() = default;
  virtual StateSpec state_spec() const = 0;
  // x [T, D] f32 contiguous -> [T, D]; state is read and written at the slots that ctx.spans names.
  virtual Tensor forward(ForwardContext& ctx, const Tensor& x, StateView& state) const = 0;
  // Puts the state a sequence begins with into `slot`: zeros, unless the mixer has learned initial states.
  virtual void reset_state(StateView& state, int64_t slot) const;
  // The gradient of the state at `slot`, as of reset_state(), passes to what it was made from.
  virtual void reset_state_backward(Gradients&, const StateView& state, int64_t slot) const;
};

struct MixerInfo {
  const char* name;
  std::vector<ParamSpec> (*params)(const MixerConfig&, int64_t d_model);
  std::unique_ptr<Mixer> (*make)(const MixerConfig&, int64_t d_model, const ParamSource&);
  // Small configurations, one for each option that changes the mathematics; tests/contract_test.cc runs them all.
  std::vector<MixerConfig> (*examples)();
};

// tensor[slot] as a view without the slot dimension.
Tensor slot_of(const Tensor& state, int64_t slot);

}  // namespace krait
