#include "krait/train/config.h"

#include <algorithm>
#include <limits>

#include "krait/core/error.h"
#include "krait/io/mapped_file.h"
#include "krait/train/settings.h"

namespace krait::train {
namespace {

constexpr double kHuge = std::numeric_limits<double>::max();
constexpr int64_t kMostSteps = 1'000'000'000'000'000;
constexpr const char* kNoEffect = "has no effect ";

// Keys of a config.json in the original form that a table [model] may have, and their values.
void read_keys(SettingReader& r, io::Json& keys) {
  keys = io::Json::object();
  for (const char* key : {"d_model", "n_layer", "d_intermediate", "vocab_size", "pad_vocab_size_multiple"}) {
    int64_t value = -1;
    r.read(key, value, 0);
    if (value >= 0) keys.set(key, io::Json(value));
  }
  for (const char* key : {"rms_norm", "tie_embeddings"}) {
    bool value = true;
    r.read(key, value);
    if (r.has(key)) keys.set(key, io::Json(value));
  }
  io::Json ssm;
  r.read("ssm_cfg", ssm);
  if (ssm.is_object()) keys.set("ssm_cfg", std::move(ssm));
}

void read_model(SettingReader& r, const Setting& root, ModelConfig& m) {
  r.enter("model");
  r.read("config", m.config);
  r.read("from", m.from);
  r.read("seed", m.seed);
  read_keys(r, m.keys);
  const bool is_inline = m.keys.size() > 0;
  if (!m.config.empty() && !m.from.empty()) r.problem("from", "and config: only one of them can say what the model is");
  if (is_inline && !(m.config.empty() && m.from.empty())) {
    r.problem(m.keys.items().front().first,
              std::string(kNoEffect) + "beside " + (m.config.empty() ? "from" : "config"));
  }
  if (!is_inline && m.config.empty() && m.from.empty()) {
    r.problem("", "says no model: config = FILE, from = CHECKPOINT, or d_model, n_layer, ssm_cfg themselves");
  }
  if (is_inline) {
    for (const char* key : {"d_model", "n_layer", "ssm_cfg"}) {
      if (!r.has(key)) r.problem(key, "is missing");
    }
  }
  if (!m.from.empty() && r.has("seed")) r.problem("seed", std::string(kNoEffect) + "beside from: no weights are drawn");
  r.leave();
  const auto at = root.table.find("model");
  m.place = at == root.table.end() ? root.place : at->second.place;
}

// As peft takes them: a list of names, or one regular expression for whole names (true).
bool read_modules(SettingReader& r, const Setting& root, const char* key, std::vector<std::string>& names) {
  r.read(key, names);
  return r.has(key) && root.table.at("lora").table.at(key).value.is_string() &&
         names != std::vector<std::string>{kAllLinear};
}

void read_lora(SettingReader& r, const Setting& root, const ModelConfig& m, LoraConfig& l) {
  l.enabled = root.table.contains("lora");
  r.enter("lora");
  r.read("rank", l.settings.rank, 1);
  l.settings.alpha = static_cast<double>(l.settings.rank);
  r.read("alpha", l.settings.alpha, 1e-30, kHuge);
  r.read("dropout", l.settings.dropout, 0, 1 - 1e-12);
  r.read("rslora", l.settings.rslora);
  l.settings.targets_are_pattern = read_modules(r, root, "targets", l.settings.targets);
  l.settings.exclude_is_pattern = read_modules(r, root, "exclude", l.settings.exclude);
  r.read("initial_states", l.initial_states);
  l.settings.base_model = m.from;
  if (l.enabled && m.from.empty()) r.problem("", "wants [model] from = CHECKPOINT, whose weights stay as they are");
  if (l.enabled && l.settings.targets.empty()) {
    if (!l.initial_states) {
      r.problem("targets", "is missing: targets = [\"in_proj\", \"out_proj\"], or initial_states = true");
    }
    for (const char* key : {"rank", "alpha", "dropout", "rslora", "exclude"}) {
      if (r.has(key)) r.problem(key, std::string(kNoEffect) + "without targets");
    }
  }
  r.leave();
}

void read_distill(SettingReader& r, const Setting& root, DistillConfig& d) {
  r.enter("distill");
  r.read("teacher", d.teacher);
  r.read("weight", d.weight, 1e-9, 1);
  r.read("temperature", d.temperature, 1e-3, 1e3);
  if (root.table.contains("distill") && d.teacher.empty()) r.problem("teacher", "is missing: teacher = MODEL");
  r.leave();
}

void read_data(SettingReader& r, DataConfig& d) {
  r.enter("data");
  r.read("train", d.train);
  r.read("valid", d.valid);
  r.read("mode", d.mode, {"contiguous", "packed", "windows"});
  r.read("length", d.length, 1);
  r.read("shuffle", d.shuffle);
  r.read("tokenizer", d.tokenizer);
  r.read("task", d.task);
  r.read("options", d.options);
  r.read("valid_options", d.valid_options);
  if (d.task.empty() == d.train.empty()) {
    r.problem(d.task.empty() ? "train" : "task", d.task.empty() ? "is missing: train = SHARDS, or task = NAME"
                                                                : "and train: only one of them can be read");
  }
  for (const char* key : {"valid", "mode", "length", "shuffle", "tokenizer"}) {
    if (!d.task.empty() && r.has(key)) r.problem(key, std::string(kNoEffect) + "on a task");
  }
  for (const char* key : {"options", "valid_options"}) {
    if (d.task.empty() && r.has(key)) r.problem(key, std::string(kNoEffect) + "without a task");
  }
  if (!d.task.empty() && data::find_task(d.task) == nullptr) {
    std::string names;
    for (const data::TaskInfo& t : data::tasks()) names += (names.empty() ? "" : ", ") + std::string(t.name);
    r.problem("task", "is '" + d.task + "', expected one of " + names);
  }
  r.leave();
}

void read_optimizer(SettingReader& r, OptimizerOptions& o) {
  r.enter("optimizer");
  r.read("name", o.name, {"adamw", "lion"});
  constexpr double kBelowOne = 1 - 1e-12;
  r.read("beta1", o.beta1, 0, kBelowOne);
  r.read("beta2", o.beta2, 0, kBelowOne);
  r.read("eps", o.eps, 1e-30, 1);
  r.read("weight_decay", o.weight_decay, 0, kHuge);
  if (o.name == "lion" && r.has("eps")) r.problem("eps", std::string(kNoEffect) + "on lion");
  r.leave();
}

void read_schedule(SettingReader& r, ScheduleConfig& s) {
  r.enter("schedule");
  r.read("shape", s.shape, {"constant", "cosine", "linear", "wsd"});
  r.read("peak", s.peak, 0, kHuge);
  r.read("final", s.final, 0, kHuge);
  r.read("warmup", s.warmup, 0, 1);
  r.read("decay", s.decay, 0, 1);
  if (s.shape == "constant" && r.has("final")) r.problem("final", std::string(kNoEffect) + "on a constant rate");
  if (s.shape != "wsd" && r.has("decay")) r.problem("decay", std::string(kNoEffect) + "on shape " + s.shape);
  if (s.shape == "wsd" && s.warmup + s.decay > 1) r.problem("decay", "and warmup are more than the whole run");
  r.leave();
}

void one_of(SettingReader& r, const char* a, const char* b) {
  if (r.has(a) == r.has(b)) r.problem(a, std::string("or ") + b + (r.has(a) ? ", not both" : " is missing"));
}

void read_loop(SettingReader& r, LoopConfig& t, const DataConfig& d, const LoraConfig& l) {
  r.enter("train");
  r.read("steps", t.steps, 1);
  r.read("tokens", t.tokens, 1);
  r.read("batch", t.batch, 1);
  r.read("batch_tokens", t.batch_tokens, 1);
  r.read("micro_batch", t.micro_batch, 1);
  r.read("seed", t.seed);
  r.read("clip", t.clip, 0, kHuge);
  r.read("z_loss", t.z_loss, 0, kHuge);
  r.read("ema", t.ema, 0, 1 - 1e-12);
  r.read("weights", t.weights, {"f32", "bf16"});
  r.read("checkpoint", t.checkpoint);
  r.read("segment", t.segment, 0);
  r.read("threads", t.threads, 0);
  if (l.enabled && r.has("weights")) r.problem("weights", std::string(kNoEffect) + "beside [lora]: factors stay f32");
  for (const auto& [key, value] : {std::pair{"steps", t.steps}, std::pair{"tokens", t.tokens}}) {
    if (value > kMostSteps) r.problem(key, "is " + std::to_string(value) + ", expected 1e15 at most");
  }
  one_of(r, "steps", "tokens");
  one_of(r, "batch", "batch_tokens");
  for (const char* key : {"tokens", "batch_tokens"}) {
    if (!d.task.empty() && r.has(key)) r.problem(key, "cannot be counted on a task: say steps and batch");
  }
  if (t.batch_tokens > 0 && t.batch_tokens % d.length != 0) {
    r.problem("batch_tokens", "is no multiple of the length " + std::to_string(d.length));
  }
  const int64_t batch = t.batch > 0 ? t.batch : t.batch_tokens / std::max<int64_t>(d.length, 1);
  if (t.micro_batch > 0 && batch > 0 && batch % t.micro_batch != 0) {
    r.problem("micro_batch", "does not divide the " + std::to_string(batch) + " samples of a step");
  }
  r.leave();
}

void read_rest(SettingReader& r, TrainConfig& c) {
  r.enter("validation");
  r.read("every", c.validation.every, 1);
  r.read("batches", c.validation.batches, 1);
  for (const char* key : {"every", "batches"}) {
    if (!c.validates() && r.has(key)) r.problem(key, std::string(kNoEffect) + "without [data] valid");
  }
  r.leave();
  r.enter("save");
  r.read("every", c.save.every, 1);
  r.read("keep_last", c.save.keep_last, 1);
  r.read("best", c.save.best);
  if (!c.validates() && r.has("best")) r.problem("best", std::string(kNoEffect) + "without [data] valid");
  r.leave();
  r.enter("sample");
  r.read("prompts", c.sample.prompts);
  r.read("every", c.sample.every, 1);
  r.read("tokens", c.sample.tokens, 1);
  r.read("temperature", c.sample.temperature, 0, kHuge);
  for (const char* key : {"every", "tokens", "temperature"}) {
    if (c.sample.prompts.empty() && r.has(key)) r.problem(key, std::string(kNoEffect) + "without prompts");
  }
  if (!c.sample.prompts.empty() && !c.data.task.empty()) r.problem("prompts", std::string(kNoEffect) + "on a task");
  r.leave();
  r.enter("stop");
  r.read("patience", c.stop.patience, 1);
  if (!c.validates() && r.has("patience")) r.problem("patience", std::string(kNoEffect) + "without [data] valid");
  r.leave();
}

}  // namespace

TrainConfig parse_config(std::string_view text, const std::string& name, const std::vector<std::string>& changes) {
  const Setting root = parse_settings(text, name, changes);
  TrainConfig c;
  SettingReader r(root);
  read_model(r, root, c.model);
  read_lora(r, root, c.model, c.lora);
  read_distill(r, root, c.distill);
  read_data(r, c.data);
  read_optimizer(r, c.optimizer);
  read_schedule(r, c.schedule);
  read_loop(r, c.train, c.data, c.lora);
  read_rest(r, c);
  r.finish();
  if (!c.data.task.empty() && c.validation.batches == 0) c.validation.batches = 1;
  return c;
}

TrainConfig read_config(const std::filesystem::path& path, const std::vector<std::string>& changes) {
  return parse_config(io::MappedFile::open(path)->text(), path.string(), changes);
}

}  // namespace krait::train
