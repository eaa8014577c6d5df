// From a TrainConfig to what a Trainer works on: the data, the model, the plan.
#pragma once
#include <memory>
#include <optional>

#include "krait/data/corpus.h"
#include "krait/train/config.h"
#include "krait/train/train_state.h"
#include "krait/train/trainer.h"

namespace krait::train {

struct RunData {
  std::unique_ptr<data::Corpus> train_corpus, valid_corpus;  // of shards
  std::unique_ptr<data::BatchSource> train, valid;           // valid may be null
};
// Opens and checks everything. Throws kBadData on shards that cannot be read or do not belong together.
RunData open_data(const TrainConfig&);

// The architecture. Throws kBadData if it cannot be read, or has fewer ids than the data.
ModelSpec model_spec(const TrainConfig&, const RunData&);

// The weights that the first step begins with: drawn, or read from the checkpoint to fine-tune.
ParamStore first_params(const TrainConfig&, const ModelSpec&, ThreadPool&);

// What a run with a table [lora] begins with.
struct FirstAdapter {
  Adapter adapter;
  uint64_t base = 0;  // Model::fingerprint of the model that it belongs to
};
// None without that table. Throws kBadData on a target that names nothing.
std::optional<FirstAdapter> first_adapter(const TrainConfig&, const ModelSpec&, const ParamStore&, const Runtime&);

// The model to follow; none without a table [distill]. Throws kBadData if it is of another vocabulary.
Distillation distillation(const TrainConfig&, const ModelSpec&, const Runtime&);

// With the adapter, if there is one.
TrainModelOptions model_options(const TrainConfig&, const std::optional<FirstAdapter>&, Distillation);

// Steps, batches and intervals in samples.
TrainerOptions trainer_options(const TrainConfig&, const RunData&);

Identity identity_of(const TrainConfig&, const TrainerOptions&, const ModelSpec&, const RunData&,
                     const std::optional<FirstAdapter>&, const Distillation&);

}  // namespace krait::train
