// What of a model LoRA and state tuning train: which parameters the targets name, and the adapter to begin with.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "krait/models/adapter.h"
#include "krait/models/model.h"

namespace krait::train {

// The parameters that `targets` name, as in peft: names that a module is or ends with after a dot ("in_proj"), or one
// regular expression for whole module names if `are_pattern`; "all-linear": all matrices but the head. Throws kUsage,
// with the modules that there are, if one of them names nothing.
std::vector<AdaptableParam> match_targets(const ModelSpec&, const std::vector<std::string>& targets, bool are_pattern);

// Those of `from` that `exclude` does not name, in the same way. Throws kUsage if it names none of them, or all.
std::vector<AdaptableParam> without(const std::vector<AdaptableParam>& from, const std::vector<std::string>& exclude,
                                    bool is_pattern);

// Drawn as peft does, so that it changes nothing yet: A from ±1/√K, B zero; of the embedding A zero, B standard normal.
// Deterministic in (settings, seed). Its settings name what "all-linear" stands for. Throws kUsage on settings out of
// range.
Adapter new_adapter(const ModelSpec&, const LoraSettings&, uint64_t seed);

// Adds initial states of zero for all states of f32; Mamba-3's phases are none, they stay at zero.
void add_initial_states(Adapter&, const Model&);

// What of an adapter is trained: "NAME.lora_A" and "NAME.lora_B" of a parameter NAME, and its initial states under the
// names that they have there. The tensors are the adapter's own.
std::vector<std::pair<ParamSpec, Tensor>> adapter_params(const Adapter&);

// With tensors of its own.
Adapter clone(const Adapter&);

// "12 of 14 modules, 98304 parameters, 0.82 % of the model:" and a line for each kind of module.
std::string describe(const Adapter&, const ModelSpec&);

}  // namespace krait::train
