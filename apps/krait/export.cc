// krait export: a checkpoint of a training run -> a model that other commands and programs open.
#include <charconv>
#include <filesystem>
#include <memory>

#include "cli.h"
#include "convert.h"
#include "krait/core/error.h"
#include "krait/models/peft.h"
#include "krait/train/train_state.h"

namespace krait::cli {
namespace {

namespace fs = std::filesystem;
using train::RunFolder;

struct Args {
  ConvertArgs convert;
  std::string run, step = "latest";
  bool ema = false;
};

int64_t wanted_step(const Args& a, const std::vector<int64_t>& steps) {
  if (a.step == "latest") return steps.back();
  if (a.step == "best") {
    const int64_t best = train::read_progress(RunFolder::checkpoint(a.run, steps.back())).best_step;
    if (best == 0) fail_usage("[export] the run " + a.run + " has no validations to choose by: say --step latest");
    return best;
  }
  int64_t step = -1;
  const char* end = a.step.data() + a.step.size();
  if (const auto [at, error] = std::from_chars(a.step.data(), end, step); error != std::errc() || at != end) {
    fail_usage("[export] --step is '" + a.step + "', expected latest, best or a number");
  }
  return step;
}

fs::path checkpoint_of(const Args& a) {
  if (fs::exists(fs::path(a.run) / "state.json")) {
    if (a.step != "latest") fail_usage("[export] --step has no effect on one checkpoint, " + a.run);
    return a.run;
  }
  const std::vector<int64_t> steps = RunFolder::steps(a.run);
  if (steps.empty()) fail_data("[export] " + a.run + " has no checkpoints (step-…)");
  const int64_t step = wanted_step(a, steps);
  fs::path folder = RunFolder::checkpoint(a.run, step);
  if (fs::exists(folder / "state.json")) return folder;
  std::string there;
  for (const int64_t s : steps) there += (there.empty() ? "" : ", ") + std::to_string(s);
  fail_usage("[export] " + a.run + " has no checkpoint of step " + std::to_string(step) + "; it has " + there);
}

int export_run(Args a) {
  fs::path source = checkpoint_of(a);
  if (fs::exists(source / kAdapterConfig) || fs::exists(source / kInitialStates)) {
    fail_usage("[export] " + source.string() + " holds an adapter: krait run MODEL --lora takes it as it is, krait " +
               "lora merge MODEL makes a model of it");
  }
  if (a.ema) {
    source /= "ema.safetensors";
    if (!fs::exists(source)) fail_usage("[export] the run was trained without averaged weights ([train] ema)");
  }
  a.convert.model = source.string();
  return convert(a.convert);
}

}  // namespace

void add_export(Command& root) {
  auto a = std::make_shared<Args>();
  Command c = root.subcommand("export", "Write a checkpoint of a training run as a model by itself");
  c.positional("RUN", a->run, "the folder of a run, or one checkpoint in it");
  c.positional("OUT", a->convert.out, "a folder, or a file that ends in .gguf");
  c.option("--step", a->step, "latest, best (least validation loss) or a number");
  c.flag("--ema", a->ema, "the averaged weights instead of the last ones");
  c.choice("--form", a->convert.to, {"auto", "safetensors", "gguf", "hf", "original"}, "as --to of krait convert");
  c.choice("--dtype", a->convert.dtype, {"file", "f32", "bf16", "f16"},
           "of matrices and embeddings; file: f32, as they were trained");
  c.flag("--force", a->convert.force, "overwrite what OUT has");
  c.run([a] { return export_run(*a); });
}

}  // namespace krait::cli
