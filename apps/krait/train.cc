// krait train: a model from token shards or a task, as a TOML file says.
#include <cstdio>
#include <filesystem>
#include <memory>

#include "cli.h"
#include "krait/backends/cpu/cpu_backend.h"
#include "krait/backends/cpu/roofline.h"
#include "krait/core/error.h"
#include "krait/text/utf8.h"
#include "krait/train/event_log.h"
#include "krait/train/lora.h"
#include "krait/train/metrics_log.h"
#include "krait/train/trainer.h"
#include "session.h"
#include "terminal.h"
#include "train_report.h"
#include "train_text.h"

namespace krait::cli {
namespace {

namespace fs = std::filesystem;
using train::RunFolder;

struct Args {
  std::string config, out;
  std::vector<std::string> changes;
  int64_t threads = 0;
  bool resume = false, explain = false;
};

std::string run_folder(const Args& a) { return a.out.empty() ? fs::path(a.config).stem().string() : a.out; }

// The step to go on from; none: from the beginning.
std::optional<int64_t> first_step(const Args& a) {
  const std::string out = run_folder(a);
  const std::vector<int64_t> steps = RunFolder::steps(out);
  if (a.resume && steps.empty()) fail_usage("[train] --resume: " + out + " has no checkpoints (step-…)");
  if (!a.resume && !steps.empty()) {
    fail_usage("[train] " + out + " has checkpoints already: --resume goes on from the last one, --out names another " +
               "folder");
  }
  if (!a.resume) return std::nullopt;
  return steps.back();
}

// The metrics of a run that left no checkpoint are not written over.
void set_aside(const fs::path& metrics) {
  std::error_code ec;
  if (fs::file_size(metrics, ec) == 0 || ec) return;
  fs::path kept;
  for (int n = 1; kept.empty() || fs::exists(kept); ++n) kept = metrics.string() + "." + std::to_string(n);
  fs::rename(metrics, kept);
  std::fprintf(stderr, "note: metrics of an earlier run without checkpoints are now in %s\n",
               krait::text::escape_controls(kept.string()).c_str());
}

const char* name_of(train::Outcome outcome) {
  switch (outcome) {
    case train::Outcome::kDone:
      return "done";
    case train::Outcome::kStopped:
      return "stopped: the validation loss no longer falls";
    case train::Outcome::kInterrupted:
      return "interrupted";
  }
  return "?";
}

int run(const Args& a, const train::TrainConfig& config, const train::RunData& data, const ModelSpec& spec,
        train::TrainerOptions options, const TrainText& text) {
  const std::optional<int64_t> resumed = first_step(a);
  const auto pool = make_pool(config.train.threads);
  Runtime runtime;
  runtime.kernels = &cpu_kernels();
  runtime.pool = pool.get();
  options.peak_flops = 1e9 * measure_f32_gflops(*pool);

  const Signals signals;
  ParamStore params = train::first_params(config, spec, *pool);
  const auto adapter = train::first_adapter(config, spec, params, runtime);
  if (adapter) std::fprintf(stderr, "%s\n", train::describe(adapter->adapter, spec).c_str());
  train::Distillation follows = train::distillation(config, spec, runtime);
  RunFolder folder(run_folder(a), train::identity_of(config, options, spec, data, adapter, follows),
                   adapter ? std::vector<train::FileContent>{} : text.files());
  train::TrainModel model(spec, params, runtime, train::model_options(config, adapter, std::move(follows)));
  params = {};  // what is trained was copied
  TrainProgress progress;
  train::Observers observers;
  train::Trainer trainer({model, *data.train, data.valid.get(), *pool, folder, observers, text.writer(config)},
                         options);
  const fs::path metrics_file = folder.path() / "metrics.jsonl";
  if (resumed) {
    trainer.resume(*resumed);
  } else {
    set_aside(metrics_file);
  }
  train::MetricsLog metrics(metrics_file, resumed.value_or(0));  // which is cut only now
  train::EventLog events(folder.path(), resumed.value_or(0));
  observers.add(metrics);
  observers.add(events);
  observers.add(progress);
  const train::Outcome outcome = trainer.run([] { return Signals::interrupted().load(); });
  if (outcome == train::Outcome::kInterrupted) Signals::check();
  const std::string last = RunFolder::checkpoint(folder.path(), trainer.progress().step).string();
  std::fprintf(stderr, "%s: %s\n", name_of(outcome), krait::text::escape_controls(last).c_str());
  return 0;
}

std::optional<train::FirstAdapter> explained_adapter(const train::TrainConfig& config, const ModelSpec& spec) {
  if (!config.lora.enabled) return std::nullopt;
  const auto pool = make_pool(config.train.threads);
  Runtime runtime;
  runtime.kernels = &cpu_kernels();
  runtime.pool = pool.get();
  return train::first_adapter(config, spec, train::first_params(config, spec, *pool), runtime);
}

int train_command(const Args& a, bool threads_given) {
  train::TrainConfig config = train::read_config(a.config, a.changes);
  if (threads_given) config.train.threads = a.threads;
  const train::RunData data = train::open_data(config);
  const ModelSpec spec = train::model_spec(config, data);
  const train::TrainerOptions options = train::trainer_options(config, data);
  const TrainText text(config, data, spec);
  if (a.explain) {
    explain(config, options, spec, data, explained_adapter(config, spec));
    return 0;
  }
  return run(a, config, data, spec, options, text);
}

}  // namespace

void add_train(Command& root) {
  auto a = std::make_shared<Args>();
  Command c = root.subcommand("train", "Train a model from token shards or a task, as a TOML file says");
  c.positional("CONFIG", a->config, "what to train, on what and how: docs/train.md");
  c.option("-o,--out", a->out, "folder of checkpoints and metrics; default: the name of CONFIG without .toml");
  c.flag("--resume", a->resume, "go on from the last checkpoint in that folder, to the same bits");
  c.list("--set", a->changes, "KEY=VALUE: a setting instead of that of CONFIG, as train.steps=100; repeatable");
  c.flag("--explain", a->explain, "print every tensor (shape, type, first value, decay) and the plan; train nothing");
  c.option("-t,--threads", a->threads, "threads; 0: all CPUs this process may use; default: that of CONFIG");
  c.footer("Ctrl-C and SIGTERM end a run with a checkpoint, exit codes 130 and 143.");
  c.run([a, c] {
    for (const char* o : {"--resume", "--out", "--threads"}) {
      if (a->explain && c.given(o)) fail_usage(std::string("[train] ") + o + " has no effect with --explain");
    }
    return train_command(*a, c.given("--threads"));
  });
}

}  // namespace krait::cli
