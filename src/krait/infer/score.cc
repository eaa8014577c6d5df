#include "krait/infer/score.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace krait {

void score(const Model& model, SlotStore& states, int64_t slot, std::span<const int32_t> ids,
           const std::function<bool(int64_t, const Tensor&)>& visit, int64_t chunk) {
  const auto n = static_cast<int64_t>(ids.size());
  std::vector<int64_t> rows;
  for (int64_t first = 0; first < n; first += chunk) {
    const int64_t length = std::min(chunk, n - first);
    rows.resize(static_cast<size_t>(length));
    std::iota(rows.begin(), rows.end(), 0);
    const auto part = ids.subspan(static_cast<size_t>(first), static_cast<size_t>(length));
    const SeqSpans spans = SeqSpans::one(length, static_cast<int32_t>(slot));
    if (!visit(first, model.forward(part, spans, states, rows))) return;
  }
}

int32_t most_likely(std::span<const float> logits) {
  return static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
}

double log_sum_exp(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  return top + std::log(sum);
}

double negative_log_likelihood(std::span<const float> logits, int32_t target) {
  return log_sum_exp(logits) - static_cast<double>(logits[static_cast<size_t>(target)]);
}

}  // namespace krait
