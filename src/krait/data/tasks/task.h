// Task: synthetic sequences with known answers, generated one by one from (seed, index), and how they are scored.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "krait/core/rng.h"
#include "krait/data/batch_source.h"

namespace krait::data {

struct Example {
  std::vector<int32_t> ids;      // [T]
  std::vector<int32_t> targets;  // [T]; 0 where no answer is wanted
  std::vector<float> weights;    // [T]; 1 where one is, else 0

  explicit Example(size_t length = 0) : ids(length), targets(length), weights(length) {}
  void answer(size_t at, int32_t target) {
    targets[at] = target;
    weights[at] = 1.0f;
  }
};

struct Score {
  int64_t right = 0, counted = 0;
  double accuracy() const { return counted > 0 ? static_cast<double>(right) / static_cast<double>(counted) : 0; }
};

using TaskConfig = std::map<std::string, std::string, std::less<>>;  // option -> value

// Values of all options of a task, given or default.
class TaskOptions {
 public:
  TaskOptions(std::string task, TaskConfig values) : task_(std::move(task)), values_(std::move(values)) {}
  // Each throws kUsage on what is no value of its kind or out of range.
  int64_t integer(std::string_view name, int64_t least, int64_t most) const;
  double number(std::string_view name, double least, double most) const;
  std::string choice(std::string_view name, const std::vector<std::string>& of) const;
  [[noreturn]] void fail(const std::string& what) const;
  const TaskConfig& values() const { return values_; }
  const std::string& task() const { return task_; }

 private:
  const std::string& text(std::string_view name) const;
  std::string task_;
  TaskConfig values_;
};

class Task : public BatchSource {
 public:
  Task(const TaskOptions&, uint64_t seed);

  int64_t epoch_samples() const override { return kEndless; }
  uint64_t fingerprint() const override { return fingerprint_; }
  Batch samples(Position first, int64_t n) const override;  // the examples from first.index on

  virtual Example example(int64_t index) const = 0;
  // Whether the paper counts sequences with every answer right, instead of answers.
  virtual bool counts_sequences() const { return false; }
  virtual double chance() const = 0;  // accuracy of guessing an answer

  // predictions: [T], the most likely id at each position of the batch.
  Score score(const Batch&, std::span<const int32_t> predictions) const;
  // (accuracy - chance) / (1 - chance), as papers on state tracking print it.
  double scaled_accuracy(const Score& s) const { return (s.accuracy() - chance()) / (1 - chance()); }

 protected:
  Rng rng(int64_t index) const { return Rng(seed_, static_cast<uint64_t>(index)); }

 private:
  uint64_t seed_, fingerprint_;
};

struct TaskOption {
  std::string_view name, value, help;  // value: the default
};

struct TaskInfo {
  std::string_view name, summary;
  std::vector<TaskOption> options;
  std::unique_ptr<Task> (*make)(const TaskOptions&, uint64_t seed);
};

const std::vector<TaskInfo>& tasks();
// Null if there is no such task.
const TaskInfo* find_task(std::string_view name);
// Throws kUsage on an option the task does not have, or a value that makes no sense, and says what there is.
std::unique_ptr<Task> make_task(const TaskInfo&, const TaskConfig&, uint64_t seed);

}  // namespace krait::data
