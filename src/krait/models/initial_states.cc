// The states that sequences begin with.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "krait/core/error.h"
#include "krait/models/model.h"

namespace krait {

void Model::make_initial_states() {
  const std::vector<StateSpec> specs = state_specs();
  for (const auto& a : adapters_) {
    std::set<std::string> unused;
    for (const auto& [name, t] : a->states) unused.insert(name);
    auto& blocks = initial_states_.emplace_back(specs.size());
    for (size_t b = 0; b < specs.size(); ++b) {
      for (const StateTensorSpec& s : specs[b]) {
        Tensor& t = blocks[b].emplace_back();
        const std::string name = spec_.blocks[b].prefix + "." + s.name;
        if (unused.erase(name) == 0) continue;
        t = a->states.at(name);
        if (s.dtype == DType::kF32 && t.dtype() == DType::kF32 && t.shape() == s.shape && t.is_contiguous()) continue;
        fail_data(fmt::format("[lora] adapter {}: {} is {} {}, this state of the model is {} {}", a->name, name,
                              name_of(t.dtype()), t.shape().str(), name_of(s.dtype), s.shape.str()));
      }
    }
    if (unused.empty()) continue;
    fail_data(fmt::format("[lora] adapter {}: the model has no state {}", a->name, fmt::join(unused, ", ")));
  }
}

void Model::reset_state(SlotStore& states, int64_t slot, int32_t adapter) const {
  for (size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i].mixer->reset_state(states.block(i), slot);
    if (adapter < 0) continue;
    const StateView& own = initial_states_[static_cast<size_t>(adapter)][i];
    for (size_t t = 0; t < own.size(); ++t) {
      if (!own[t].defined()) continue;
      Tensor s = states.at(i, t, slot);
      std::copy_n(own[t].f32(), own[t].numel(), s.f32());
    }
  }
}

void Model::reset_state_backward(Gradients& g, SlotStore& states, int64_t slot) const {
  for (size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i].mixer->reset_state_backward(g, states.block(i), slot);
    if (default_adapter() < 0) continue;
    const StateView& own = initial_states_[static_cast<size_t>(default_adapter())][i];
    for (size_t t = 0; t < own.size(); ++t) {
      Tensor d = g.if_watched(own[t]);
      if (!d.defined()) continue;
      const Tensor ds = slot_of(g.of(states.block(i)[t]), slot);
      for (int64_t k = 0; k < d.numel(); ++k) d.f32()[k] += ds.f32()[k];
    }
  }
}

}  // namespace krait
