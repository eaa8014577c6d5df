// krait task: how well a model does a synthetic task, at several lengths.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "json_out.h"
#include "krait/core/error.h"
#include "krait/data/tasks/task.h"
#include "krait/infer/score.h"
#include "progress.h"
#include "session.h"
#include "terminal.h"

namespace krait::cli {
namespace {

struct Args {
  std::string task;
  ModelArgs model;
  std::vector<std::string> options;
  std::vector<int64_t> lengths;
  int64_t samples = 100, seed = 1'000'003;
  bool json = false;
};

constexpr int64_t kChunk = 8192;   // tokens of a pass, all sequences together
constexpr int64_t kTogether = 16;  // sequences of a pass at most

// What --lengths sets: of options with a range both ends.
bool is_length(std::string_view option) {
  return option == "length" || option == "length_min" || option == "length_max" || option == "length_end";
}

data::TaskConfig config_of(const Args& a) {
  data::TaskConfig c;
  for (const std::string& o : a.options) {
    const size_t equals = o.find('=');
    if (equals == std::string::npos) fail_usage("[task] --option is '" + o + "', expected NAME=VALUE");
    const std::string name = o.substr(0, equals);
    if (!a.lengths.empty() && is_length(name))
      fail_usage("[task] --option " + name + " has no effect beside --lengths");
    if (!c.emplace(name, o.substr(equals + 1)).second) fail_usage("[task] --option " + name + " is given twice");
  }
  return c;
}

// The most likely id wherever an answer is wanted, elsewhere 0. The sequences run side by side, piece by piece.
std::vector<int32_t> predict(const Model& m, const data::Batch& b) {
  std::vector<int32_t> predictions(b.ids.size(), 0);
  SlotStore states(m.state_specs(), b.n_seqs());
  for (int64_t s = 0; s < b.n_seqs(); ++s) m.reset_state(states, s);
  const int64_t piece = std::max<int64_t>(kChunk / b.n_seqs(), 1);
  int64_t longest = 0;
  for (int64_t s = 0; s < b.n_seqs(); ++s) longest = std::max(longest, b.spans.length(s));
  for (int64_t first = 0; first < longest; first += piece) {
    SeqSpans spans;
    std::vector<int32_t> ids;
    std::vector<int64_t> rows;
    std::vector<size_t> places;
    for (int64_t s = 0; s < b.n_seqs(); ++s) {
      const int64_t stop = std::min(first + piece, b.spans.length(s));
      for (int64_t t = first; t < stop; ++t) {
        const auto at = static_cast<size_t>(b.spans.offset[static_cast<size_t>(s)] + t);
        if (b.weights[at] != 0) {
          rows.push_back(static_cast<int64_t>(ids.size()));
          places.push_back(at);
        }
        ids.push_back(b.ids[at]);
      }
      spans.add(std::max<int64_t>(stop - first, 0), static_cast<int32_t>(s));
    }
    const Tensor logits = m.forward(ids, spans, states, rows);
    for (size_t i = 0; i < places.size(); ++i) {
      predictions[places[i]] =
          most_likely({logits.f32() + static_cast<int64_t>(i) * logits.dim(1), static_cast<size_t>(m.vocab_size())});
    }
    Signals::check();
  }
  return predictions;
}

struct Row {
  std::string length;
  data::Score score;
  double scaled = 0;
};

Row evaluate(const Args& a, const Model& m, data::TaskConfig config, const std::string& length) {
  const data::TaskInfo* info = data::find_task(a.task);
  if (!length.empty()) {
    for (const data::TaskOption& o : info->options) {
      if (is_length(o.name)) config[std::string(o.name)] = length;
    }
  }
  const std::unique_ptr<data::Task> task = data::make_task(*info, config, static_cast<uint64_t>(a.seed));
  if (task->vocab_size() > m.vocab_size()) {
    fail_usage("[task] " + a.task + " has " + std::to_string(task->vocab_size()) + " ids, the model " +
               std::to_string(m.vocab_size()));
  }
  Row row{length, {}, 0};
  ProgressBar bar(a.task + " " + length, a.samples, "samples");
  for (int64_t i = 0; i < a.samples; i += kTogether) {
    const int64_t n = std::min(kTogether, a.samples - i);
    const data::Batch b = task->samples({0, i}, n);
    const data::Score s = task->score(b, predict(m, b));
    row.score.right += s.right;
    row.score.counted += s.counted;
    bar.advance(n);
  }
  bar.finish();
  row.scaled = task->scaled_accuracy(row.score);
  return row;
}

int run(const Args& a) {
  if (data::find_task(a.task) == nullptr) {
    std::string names;
    for (const data::TaskInfo& t : data::tasks()) names += (names.empty() ? "" : ", ") + std::string(t.name);
    fail_usage("[task] there is no task '" + a.task + "'; there are " + names);
  }
  if (a.samples < 1 || a.seed < 0) fail_usage("[task] --samples must be at least 1, --seed at least 0");
  const data::TaskConfig config = config_of(a);
  const Session s = open_session(a.model, NeedTokenizer::kNo);
  std::vector<std::string> lengths;
  for (const int64_t n : a.lengths) lengths.push_back(std::to_string(n));
  if (lengths.empty()) lengths.emplace_back();
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const std::string& length : lengths) {
    const Row r = evaluate(a, s.model(), config, length);
    if (a.json) {
      nlohmann::ordered_json row = {{"right", r.score.right},
                                    {"counted", r.score.counted},
                                    {"accuracy", r.score.accuracy()},
                                    {"scaled_accuracy", r.scaled}};
      if (!length.empty()) row["length"] = std::stoll(length);
      rows.push_back(std::move(row));
    } else {
      std::printf("%s%s%s: %lld of %lld right, accuracy %.2f %%, scaled %.2f %%\n", a.task.c_str(),
                  length.empty() ? "" : " length ", length.c_str(), static_cast<long long>(r.score.right),
                  static_cast<long long>(r.score.counted), 100 * r.score.accuracy(), 100 * r.scaled);
      std::fflush(stdout);
    }
  }
  if (a.json) print_json({{"task", a.task}, {"samples", a.samples}, {"rows", rows}});
  return 0;
}

std::string list_of_tasks() {
  std::string text = "Tasks and their options (with --option NAME=VALUE):\n";
  for (const data::TaskInfo& t : data::tasks()) {
    text += "  " + std::string(t.name) + ": " + std::string(t.summary) + "\n";
    for (const data::TaskOption& o : t.options) {
      text += "      " + std::string(o.name) + "=" + std::string(o.value) + "  " + std::string(o.help) + "\n";
    }
  }
  return text + "Scaled accuracy is (accuracy - chance) / (1 - chance).";
}

}  // namespace

void add_task(Command& root) {
  auto a = std::make_shared<Args>();
  Command c = root.subcommand("task", "Measure a model on a synthetic task (copying, recall, state tracking)");
  c.positional("TASK", a->task, "name of the task, below");
  add_model_options(c, a->model, true, true, {.tokenizer = false});
  c.list("--option", a->options, "NAME=VALUE of the task; repeatable");
  c.list("--lengths", a->lengths, "one row for each: sequences of exactly this length");
  c.option("--samples", a->samples, "sequences a row");
  c.option("--seed", a->seed, "of the sequences; training draws others, with its own seeds");
  c.flag("--json", a->json, "print JSON");
  c.footer(list_of_tasks());
  c.run([a] { return run(*a); });
}

}  // namespace krait::cli
