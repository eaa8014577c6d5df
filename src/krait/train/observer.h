// Observer: what a run tells about itself as it goes. Metrics files, progress and plots are observers.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace krait::train {

struct StepReport {
  int64_t step = 0, steps = 0;    // made so far, this one included; in the whole run
  int64_t tokens = 0;             // read since the first step
  double loss = 0;                // mean over the step's targets, nats
  std::optional<double> kl = {};  // of the teacher from the model, likewise, where there is one
  double lr = 0, grad_norm = 0;   // the norm before clipping
  double seconds = 0, tokens_per_second = 0;
  double peak_share = 0;  // 6 · parameters · tokens/s as a share of the machine's peak; 0: not known
};

struct ValidationReport {
  int64_t step = 0;
  double loss = 0;                      // mean over the targets, nats
  std::optional<double> accuracy = {};  // of tasks
  bool best = false;                    // less than all before
  double seconds = 0;
};

struct SavedReport {
  int64_t step = 0;
  std::filesystem::path folder;
  double seconds = 0;
};

struct SampleText {
  std::string prompt, text;
};

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_step(const StepReport&) {}
  virtual void on_validation(const ValidationReport&) {}
  virtual void on_saved(const SavedReport&) {}
  virtual void on_samples(int64_t /*step*/, const std::vector<SampleText>&) {}
};

// Passes everything on to several, in order.
class Observers final : public Observer {
 public:
  void add(Observer& o) { all_.push_back(&o); }
  void on_step(const StepReport& r) override {
    for (Observer* o : all_) o->on_step(r);
  }
  void on_validation(const ValidationReport& r) override {
    for (Observer* o : all_) o->on_validation(r);
  }
  void on_saved(const SavedReport& r) override {
    for (Observer* o : all_) o->on_saved(r);
  }
  void on_samples(int64_t step, const std::vector<SampleText>& texts) override {
    for (Observer* o : all_) o->on_samples(step, texts);
  }

 private:
  std::vector<Observer*> all_;
};

}  // namespace krait::train
