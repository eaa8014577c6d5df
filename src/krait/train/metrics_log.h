// MetricsLog: what an Observer hears, as lines of JSON in a file (docs/formats.md, "Training runs").
#pragma once
#include <filesystem>

#include "krait/io/json.h"
#include "krait/train/observer.h"

namespace krait::train {

class MetricsLog final : public Observer {
 public:
  // Appends to the file. Lines of steps after `last_step`, which a resumed run makes again, are cut off first, and so
  // is a line that is not whole. Throws kFailed if it cannot be written.
  MetricsLog(const std::filesystem::path&, int64_t last_step);
  ~MetricsLog() override;
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  void on_step(const StepReport&) override;
  void on_validation(const ValidationReport&) override;
  void on_samples(int64_t step, const std::vector<SampleText>&) override;

 private:
  void write(const io::Json&);

  std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace krait::train
