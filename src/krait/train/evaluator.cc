#include "krait/train/evaluator.h"

#include <algorithm>

#include "krait/data/tasks/task.h"
#include "krait/infer/score.h"

namespace krait::train {
namespace {

// Loss and most likely ids where a target counts, from one forward pass.
LossSum predict(const Model& model, const data::Batch& b, std::vector<int32_t>& predictions) {
  std::vector<int64_t> rows;
  for (size_t t = 0; t < b.weights.size(); ++t) {
    if (b.weights[t] != 0) rows.push_back(static_cast<int64_t>(t));
  }
  SlotStore states(model.state_specs(), b.n_seqs());
  for (int64_t s = 0; s < b.n_seqs(); ++s) model.reset_state(states, s);
  const Tensor logits = model.forward(b.ids, b.spans, states, rows);
  const int64_t V = model.padded_vocab_size();
  predictions.assign(b.ids.size(), 0);
  LossSum sum;
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::span row(logits.f32() + static_cast<int64_t>(i) * V, static_cast<size_t>(V));
    const auto t = static_cast<size_t>(rows[i]);
    predictions[t] = most_likely(row.first(static_cast<size_t>(model.vocab_size())));
    const double nll = negative_log_likelihood(row, b.targets[t]);
    sum += {static_cast<double>(b.weights[t]) * nll, static_cast<double>(b.weights[t])};
  }
  return sum;
}

}  // namespace

std::optional<Evaluation> evaluate(TrainModel& model, const data::BatchSource& source, int64_t samples, int64_t at_once,
                                   const std::function<bool()>& stop) {
  const auto* task = dynamic_cast<const data::Task*>(&source);
  LossSum sum;
  data::Score score;
  std::vector<int32_t> predictions;
  for (int64_t done = 0; done < samples; done += at_once) {
    if (stop()) return std::nullopt;
    const data::Batch b = source.samples(source.advance({}, done), std::min(at_once, samples - done));
    if (task == nullptr) {
      sum += model.evaluate(b);
      continue;
    }
    sum += predict(model.model(), b, predictions);
    const data::Score part = task->score(b, predictions);
    score.right += part.right;
    score.counted += part.counted;
  }
  Evaluation e{sum.mean(), std::nullopt};
  if (task != nullptr) e.accuracy = score.accuracy();
  return e;
}

}  // namespace krait::train
