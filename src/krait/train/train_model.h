// TrainModel: the parameters of a model that learns, and the gradients of its loss on batches.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "krait/data/batch.h"
#include "krait/models/model.h"

namespace krait::train {

// A parameter that is trained. Value and gradient are f32, contiguous, in the shape of its ParamSpec.
struct Trained {
  ParamSpec spec;
  Tensor value;     // the master copy; an optimiser changes it in place
  Tensor gradient;  // of the step: valid after gradients(), until the next begin()
};

// Whom the model learns to follow (Hinton, Vinyals and Dean 2015): ops/loss.h says what the loss is.
struct Distillation {
  std::shared_ptr<const Model> teacher;  // null: nobody. Of the same vocabulary
  float weight = 0.5, temperature = 2;
};

struct TrainModelOptions {
  DType weights = DType::kF32;  // what matrices and tables are rounded to before each step: kF32 or kBF16
  bool checkpoint = false;      // sub-blocks keep their inputs only (Model::loss)
  // Tokens of a sequence on the tape at once; 0: all. The gradients are the same to rounding; memory no longer grows
  // with the length.
  int64_t segment = 0;
  float z_loss = 0;
  // Which parameters learn, by canonical name; the rest stays as it is, in any dtype. Null: all, or with an adapter
  // none.
  std::function<bool(const std::string&)> trainable;
  // Learns too, under the names of adapter_params(). Its dropout draws masks from `dropout_seed`.
  std::optional<Adapter> adapter;
  uint64_t dropout_seed = 0;
  Distillation distillation;
};

// Sums over the targets of one or more batches.
struct LossSum {
  double nll = 0;     // Σ weight·nll
  double weight = 0;  // Σ weight
  double kl = 0;      // Σ weight·KL from the teacher, if there is one
  double mean() const { return weight > 0 ? nll / weight : 0; }
  double mean_kl() const { return weight > 0 ? kl / weight : 0; }
  LossSum& operator+=(const LossSum& o) {
    nll += o.nll;
    weight += o.weight;
    kl += o.kl;
    return *this;
  }
};

double weight_sum(const data::Batch&);

class TrainModel {
 public:
  // `params`: all of model_params(spec). Trained ones are copied to f32. Throws kUsage if nothing is trained, or the
  // teacher has another number of ids.
  TrainModel(ModelSpec spec, const ParamStore& params, const Runtime& runtime, TrainModelOptions options);
  ~TrainModel();

  const ModelSpec& spec() const { return spec_; }
  const TrainModelOptions& options() const { return options_; }
  std::vector<Trained>& trained() { return trained_; }
  const std::vector<Trained>& trained() const { return trained_; }
  // All parameters as they stand: trained ones in f32 (the masters themselves).
  const ParamStore& params() const { return masters_; }
  // The adapter as it stands (the masters themselves); null: there is none.
  const Adapter* adapter() const { return options_.adapter ? &*options_.adapter : nullptr; }

  // One step: begin(), then accumulate() for each micro-batch, then gradients(). Every gradient is a sum in the order
  // of the tokens: a batch in one piece or in several gives the same bits. `step`: of the masks of dropout.
  void begin(int64_t step = 0);
  // Adds the gradient of scale · Σ weight·(nll + z_loss·lse²), or with a teacher of what ops/loss.h says. `scale` is 1
  // / Σ weight over the whole step for a mean.
  LossSum accumulate(const data::Batch&, double scale);
  // Fills Trained::gradient.
  void gradients();

  // Losses without gradients and without the teacher, with the parameters as of now; segment by segment, too.
  LossSum evaluate(const data::Batch&);
  // The model with the parameters as of now; valid until begin() or changed().
  const Model& model();
  // To be called after the masters were changed.
  void changed() { model_.reset(); }

 private:
  void build();
  void reset_states(int64_t n_seqs);
  Dropout dropout_of(const data::Batch&, int64_t first) const;
  LossSum run(const data::Batch&, double scale, Tape*, const Dropout& dropout);
  void keep_states(std::vector<SlotStore>& before) const;
  void take_states(std::vector<SlotStore>& before);
  LossSum run_segments(const data::Batch&, double scale);

  ModelSpec spec_;
  Runtime runtime_;
  TrainModelOptions options_;
  ParamStore masters_, stored_;  // stored_: rounded as options_.weights says; what the model is made of
  std::vector<Trained> trained_;
  std::vector<Tensor> watched_;  // what of the model's is a trained parameter: [trained]
  int64_t step_ = 0, rows_ = 0;  // tokens of the step so far
  std::unique_ptr<Gradients> gradients_;
  std::unique_ptr<Tape> parameters_;
  std::unique_ptr<Model> model_;
  SlotStore states_, teacher_states_;
};

}  // namespace krait::train
