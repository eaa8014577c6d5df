// What krait train shows: the plan before a run, and how it goes.
#pragma once
#include <chrono>
#include <string>

#include "krait/train/setup.h"

namespace krait::cli {

// Every tensor that learns, with shape, type, first value and decay, then the plan, on standard output.
void explain(const train::TrainConfig&, const train::TrainerOptions&, const ModelSpec&, const train::RunData&,
             const std::optional<train::FirstAdapter>&);

// On a terminal a line that is written over again and again; else a line every few seconds.
class TrainProgress final : public train::Observer {
 public:
  TrainProgress();
  ~TrainProgress() override;
  TrainProgress(const TrainProgress&) = delete;
  TrainProgress& operator=(const TrainProgress&) = delete;

  void on_step(const train::StepReport&) override;
  void on_validation(const train::ValidationReport&) override;
  void on_saved(const train::SavedReport&) override;
  void on_samples(int64_t step, const std::vector<train::SampleText>&) override;

 private:
  void say(const std::string& line);  // a line that stays
  void draw(const train::StepReport&, const std::string& line);

  using Clock = std::chrono::steady_clock;
  bool terminal_, visible_ = false;
  Clock::time_point start_, shown_;
  int64_t first_ = -1;               // the step before the first one seen
  double tokens_ = 0, seconds_ = 0;  // of the last steps, older ones with less weight
};

}  // namespace krait::cli
