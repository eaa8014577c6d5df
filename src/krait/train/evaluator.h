// Evaluator: the loss of a model that learns on held-out samples, and on tasks how often it is right.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>

#include "krait/data/batch_source.h"
#include "krait/train/train_model.h"

namespace krait::train {

struct Evaluation {
  double loss = 0;                 // mean over the targets, nats
  std::optional<double> accuracy;  // of a data::Task, as the task counts it
};

// The first `samples` samples of the source, `at_once` in a pass. `stop` is asked between passes; none if it said so.
std::optional<Evaluation> evaluate(TrainModel&, const data::BatchSource&, int64_t samples, int64_t at_once,
                                   const std::function<bool()>& stop);

}  // namespace krait::train
