// Adapter: what fine-tuning learned beside a model that stays as it is: low-rank changes of some of its parameters
// (LoRA), and states that a sequence begins with (state tuning).
#pragma once
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "krait/models/param_store.h"

namespace krait {

// A parameter W [N, K] that adapters may change: W + scale · B·A. Convolutions count as [C, W], the embedding as
// [D, V].
struct AdaptableParam {
  std::string name;    // canonical
  std::string module;  // as PEFT names it, in the transformers form
  int64_t N = 0, K = 0;
};
// In the order of the model; the head is none of them.
std::vector<AdaptableParam> adaptable_params(const ModelSpec&);

inline constexpr const char* kAllLinear = "all-linear";  // as a target: all matrices but the head

struct LowRankFactors {
  Tensor A, B;  // f32 contiguous [r, K], [N, r]
  float scale = 1;
  int64_t rank() const { return A.dim(0); }
};

// How an adapter was made: what adapter_config.json says of it.
struct LoraSettings {
  int64_t rank = 16;
  double alpha = 16;
  bool rslora = false;               // the scale is alpha/√rank instead of alpha/rank (Kalajdzievski 2023)
  double dropout = 0;                // while training
  std::vector<std::string> targets;  // names that modules end with, or a single regular expression:
  bool targets_are_pattern = false;
  std::vector<std::string> exclude;  // of them, as targets are given
  bool exclude_is_pattern = false;
  std::string base_model;  // where the model was found, for readers
};
double scale_of(int64_t rank, double alpha, bool rslora);

struct Adapter {
  std::string name;
  LoraSettings settings;
  std::map<std::string, LowRankFactors> factors;  // by the canonical name of the parameter
  // By sub-block and state tensor, "backbone.layers.0.mixer.ssm": f32, in the shape of its StateTensorSpec.
  std::map<std::string, Tensor> states;

  int64_t param_count() const;
};
using Adapters = std::vector<std::shared_ptr<const Adapter>>;

// Throws one kBadData that lists every part that the model has no place for. Of `states` only the names are checked.
void check_adapter(const Adapter&, const ModelSpec&);

// One adapter that adds what all of them add, each times its factor. Throws kUsage if two have initial states, or a
// factor is not 1 for one that has.
Adapter combined(const std::vector<std::pair<Adapter, double>>&);

// Adds B·A to the parameters, in f32, and stores the sums in the types that the parameters have. An embedding that is
// tied to the head is untied first, for adapters do not change the head. Throws kUsage for parameters of block types
// and for adapters with initial states.
void merge(const Adapter&, ModelSpec&, ParamStore&);

// Mixes the adapter into a hash.
uint64_t hash_of(const Adapter&, uint64_t seed);

}  // namespace krait
