// EventLog: a run's numbers and sample texts in an event file, for `tensorboard --logdir RUN`.
#pragma once
#include <filesystem>

#include "krait/train/event_file.h"
#include "krait/train/observer.h"

namespace krait::train {

class EventLog final : public Observer {
 public:
  // A new file in `folder`; tensorboard shows the files of a folder together, so that a run resumed from `last_step`
  // goes on: what earlier files say of later steps it then leaves out. 0: a new run.
  EventLog(const std::filesystem::path& folder, int64_t last_step) : file_(folder) {
    if (last_step > 0) file_.session_start(last_step + 1);
  }

  void on_step(const StepReport&) override;
  void on_validation(const ValidationReport&) override;
  void on_samples(int64_t step, const std::vector<SampleText>&) override;

 private:
  EventFile file_;
};

}  // namespace krait::train
