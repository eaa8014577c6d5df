// What a model keeps of its adapters, parameter by parameter. With Runtime::parameters, gradients find their way back
// to the factors.
#pragma once
#include "krait/models/adapter.h"
#include "krait/ops/low_rank.h"
#include "krait/ops/recurrence.h"

namespace krait {

// [adapters]; null: that adapter leaves the parameter as it is. Empty if all of them do.
std::vector<std::shared_ptr<const LowRank>> low_ranks(const Runtime&, const Adapters&, const std::string& parameter);
std::vector<std::shared_ptr<const EmbeddingLowRank>> embedding_low_ranks(const Runtime&, const Adapters&);
// w [C, 1, W]: f32 values of `parameter`.
ConvTaps adapted_taps(const Runtime&, const Adapters&, const std::string& parameter, const Tensor& w);

}  // namespace krait
