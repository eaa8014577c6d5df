// Running a whole sequence through a model, chunk by chunk, to look at its logits.
#pragma once
#include <functional>
#include <span>

#include "krait/models/model.h"

namespace krait {

// Tokens of one forward pass: enough for full matmul speed, few enough that activations stay small.
inline constexpr int64_t kPrefillChunk = 256;

// Reads `ids` on top of the state in `slot`, at most `chunk` tokens a pass, and hands over the logits of each pass:
// visit(first, logits [n, V_pad]) for the tokens first .. first+n-1. The result does not depend on `chunk`.
// `visit` returns false to stop.
void score(const Model& model, SlotStore& states, int64_t slot, std::span<const int32_t> ids,
           const std::function<bool(int64_t first, const Tensor& logits)>& visit, int64_t chunk = kPrefillChunk);

// The id of the largest of `logits`, the first of several.
int32_t most_likely(std::span<const float> logits);

// log Σ e^x over a row of logits, in f64.
double log_sum_exp(std::span<const float> logits);

// −log softmax(logits)[target], in f64 over all columns of the row.
double negative_log_likelihood(std::span<const float> logits, int32_t target);

}  // namespace krait
