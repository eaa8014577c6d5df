#include "krait/data/tasks/task.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <type_traits>

#include "krait/core/error.h"
#include "krait/data/tasks/task_list.h"

namespace krait::data {
namespace {

template <class T>
bool read_number(const std::string& text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

uint64_t fingerprint_of(const TaskOptions& options, uint64_t seed) {
  std::string text = options.task();
  for (const auto& [name, value] : options.values()) text += fmt::format("\n{}={}", name, value);
  return XXH3_64bits_withSeed(text.data(), text.size(), seed);
}

}  // namespace

void TaskOptions::fail(const std::string& what) const { fail_usage("[task] " + task_ + ": " + what); }

const std::string& TaskOptions::text(std::string_view name) const { return values_.find(name)->second; }

int64_t TaskOptions::integer(std::string_view name, int64_t least, int64_t most) const {
  int64_t value = 0;
  if (!read_number(text(name), value) || value < least || value > most) {
    fail(fmt::format("{} = {}, wanted is an integer in {} .. {}", name, text(name), least, most));
  }
  return value;
}

double TaskOptions::number(std::string_view name, double least, double most) const {
  double value = 0;
  if (!read_number(text(name), value) || !(value >= least && value <= most)) {
    fail(fmt::format("{} = {}, wanted is a number in {} .. {}", name, text(name), least, most));
  }
  return value;
}

std::string TaskOptions::choice(std::string_view name, const std::vector<std::string>& of) const {
  if (std::ranges::find(of, text(name)) == of.end()) {
    fail(fmt::format("{} = {}, wanted is one of {}", name, text(name), fmt::join(of, ", ")));
  }
  return text(name);
}

Task::Task(const TaskOptions& options, uint64_t seed) : seed_(seed), fingerprint_(fingerprint_of(options, seed)) {}

Batch Task::samples(Position first, int64_t n) const {
  Batch batch;
  for (int64_t i = 0; i < n; ++i) {
    const Example e = example(advance(first, i).index);
    batch.add(e.ids, e.targets, e.weights);
  }
  return batch;
}

Score Task::score(const Batch& b, std::span<const int32_t> predictions) const {
  if (std::ssize(predictions) != b.n_tokens()) {
    fail_usage(fmt::format("[task] {} predictions for {} tokens", predictions.size(), b.n_tokens()));
  }
  Score s;
  for (int64_t q = 0; q < b.n_seqs(); ++q) {
    int64_t answers = 0, right = 0;
    const auto begin = static_cast<size_t>(b.spans.offset[static_cast<size_t>(q)]);
    for (size_t t = begin; t < begin + static_cast<size_t>(b.spans.length(q)); ++t) {
      if (b.weights[t] == 0) continue;
      ++answers;
      right += predictions[t] == b.targets[t] ? 1 : 0;
    }
    s.right += counts_sequences() ? (right == answers ? 1 : 0) : right;
    s.counted += counts_sequences() ? 1 : answers;
  }
  return s;
}

const std::vector<TaskInfo>& tasks() {
  static const std::vector<TaskInfo> all{
      selective_copying_task(),  copying_task(), induction_heads_task(), mqar_task(), parity_task(),
      modular_arithmetic_task(), needle_task()};
  return all;
}

const TaskInfo* find_task(std::string_view name) {
  const auto at = std::ranges::find(tasks(), name, &TaskInfo::name);
  return at == tasks().end() ? nullptr : &*at;
}

std::unique_ptr<Task> make_task(const TaskInfo& info, const TaskConfig& config, uint64_t seed) {
  TaskConfig values;
  std::vector<std::string_view> names;
  for (const TaskOption& o : info.options) {
    values.emplace(o.name, o.value);
    names.push_back(o.name);
  }
  for (const auto& [name, value] : config) {
    const auto at = values.find(name);
    if (at == values.end()) {
      fail_usage(fmt::format("[task] {} has no option {}; it has {}", info.name, name, fmt::join(names, ", ")));
    }
    at->second = value;
  }
  return info.make(TaskOptions(std::string(info.name), std::move(values)), seed);
}

}  // namespace krait::data
