// Trainer: the loop. Every step is a function of the data, the settings and the step before: the weights do not depend
// on threads, on how a batch is cut into micro-batches, or on where a run was interrupted.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "krait/train/observer.h"
#include "krait/train/optimizer.h"
#include "krait/train/schedule.h"
#include "krait/train/train_state.h"

namespace krait::train {

struct TrainerOptions {
  OptimizerOptions optimizer;
  LrSchedule schedule;                         // schedule.steps: of the run
  int64_t batch = 1, micro_batch = 1;          // samples of a step, and of a pass
  double clip = 1.0;                           // of the gradient norm; 0: none
  double ema = 0;                              // decay of the averaged weights; 0: none
  int64_t valid_every = 0, valid_samples = 0;  // 0: never
  int64_t save_every = 1, keep_last = 2;
  bool keep_best = false;
  int64_t sample_every = 0;
  int64_t patience = 0;   // validations in a row without a better one; 0: never ends early
  double peak_flops = 0;  // of the machine, for StepReport::peak_share; 0: not known
};

enum class Outcome : uint8_t {
  kDone,
  kStopped,      // no better validation for `patience` of them
  kInterrupted,  // `stop` said so; what was done is saved
};

class Trainer {
 public:
  using Stop = std::function<bool()>;
  using WriteSamples = std::function<std::vector<SampleText>(const Model&, int64_t step)>;

  struct Parts {
    TrainModel& model;
    const data::BatchSource& train;
    const data::BatchSource* valid;  // may be null
    ThreadPool& pool;
    RunFolder& folder;
    Observer& observer;
    WriteSamples write_samples;  // texts of the model, none if interrupted; may be empty
  };
  // Keeps references to the parts. Throws kUsage on options that make no sense.
  Trainer(Parts, TrainerOptions);

  // Goes on from the checkpoint of that step in the run's folder.
  void resume(int64_t step);

  // To the end, or until `stop`, asked between passes, is true. Throws kFailed where loss, gradient or weights are no
  // longer finite, or an observer fails: the last state whose weights are finite is saved then, if it can be.
  Outcome run(const Stop& stop);

  const Progress& progress() const { return progress_; }
  const TrainerOptions& options() const { return options_; }

 private:
  bool step(const Stop& stop);  // false: interrupted, nothing has changed
  LossSum read_gradients(const Stop& stop, int64_t& tokens, bool& interrupted);
  void update_ema();
  void swap_ema();
  bool validate(const Stop& stop);  // false: interrupted
  bool due(int64_t every) const;
  bool is_over() const;
  bool after_step(const Stop& stop);  // validation, samples, checkpoint; false: interrupted
  void save(bool remove_old);
  std::string not_finite() const;  // the name of weights that are not; "": all are
  [[noreturn]] void diverged(double loss);
  [[noreturn]] void give_up(const std::string& what);
  void tell(const std::function<void(Observer&)>& say);
  TrainState state() { return {parts_.model, *optimizer_, ema_, progress_}; }

  Parts parts_;
  TrainerOptions options_;
  std::unique_ptr<Optimizer> optimizer_;
  std::vector<Tensor> ema_;
  Progress progress_;
  double token_flops_ = 0;
  int64_t saved_ = -1;  // the step of the last checkpoint
};

}  // namespace krait::train
