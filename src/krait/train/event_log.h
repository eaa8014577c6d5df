// EventLog: a run's numbers and sample texts in an event file, for `tensorboard --logdir RUN`.
#pragma once
#include <filesystem>

#include "krait/train/event_file.h"
#include "krait/train/observer.h"

namespace krait::train {

class EventLog final : public Observer {
 public:
  // A new file in `folder`; tensorboard shows the files of a folder together, so that a resumed run goes on.
  explicit EventLog(const std::filesystem::path& folder) : file_(folder) {}

  void on_step(const StepReport&) override;
  void on_validation(const ValidationReport&) override;
  void on_samples(int64_t step, const std::vector<SampleText>&) override;

 private:
  EventFile file_;
};

}  // namespace krait::train
