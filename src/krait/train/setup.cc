#include "krait/train/setup.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "krait/core/error.h"
#include "krait/data/loader.h"
#include "krait/io/mapped_file.h"
#include "krait/models/export.h"
#include "krait/models/load.h"
#include "krait/models/presets.h"
#include "krait/train/lora.h"

namespace krait::train {
namespace {

using io::Json;

constexpr double kMostTokens = 1e9;      // of a step: all of its ids are in memory
constexpr int64_t kTokensAtOnce = 8192;  // of a micro-batch that nobody chose
// Held-out examples of a task come from another seed than those that are learned.
constexpr uint64_t kHeldOut = 0x9E3779B97F4A7C15u;

data::LoaderMode mode_of(const std::string& name) {
  return name == "packed"    ? data::LoaderMode::kPacked
         : name == "windows" ? data::LoaderMode::kWindows
                             : data::LoaderMode::kContiguous;
}

std::unique_ptr<data::Task> open_task(const std::string& name, const data::TaskConfig& options, uint64_t seed) {
  try {
    return data::make_task(*data::find_task(name), options, seed);
  } catch (const Error& e) {
    fail_data(std::string("[data] ") + e.what());
  }
}

RunData open_tasks(const TrainConfig& c) {
  RunData d;
  d.train = open_task(c.data.task, c.data.options, c.train.seed);
  data::TaskConfig held_out = c.data.options;
  for (const auto& [key, value] : c.data.valid_options) held_out[key] = value;
  d.valid = open_task(c.data.task, held_out, c.train.seed ^ kHeldOut);
  return d;
}

// The configuration of the model, of any dialect; of a checkpoint with its tensors.
std::shared_ptr<const io::Checkpoint> configuration(const ModelConfig& m, int64_t vocab) {
  if (!m.from.empty()) return io::Checkpoint::open(m.from);
  if (!m.config.empty()) {
    return io::Checkpoint::of_config(Json::parse(io::MappedFile::open(m.config)->text(), m.config));
  }
  Json keys = m.keys;
  if (!keys.find("vocab_size")) keys.set("vocab_size", Json(vocab));
  return io::Checkpoint::of_config(std::move(keys));
}

void flatten(const std::string& prefix, const Json& j, Identity& out) {
  if (!j.is_object()) {
    out[prefix] = j.is_string() ? j.as_string() : j.dump();
    return;
  }
  for (const auto& [key, value] : j.items()) flatten(prefix + "." + key, value, out);
}

// Steps that a share of the run makes.
int64_t share_of(double share, int64_t steps) {
  return static_cast<int64_t>(std::llround(share * static_cast<double>(steps)));
}

int64_t interval(int64_t wanted, int64_t steps) { return wanted > 0 ? wanted : std::max<int64_t>(steps / 10, 1); }

// The largest divisor of the batch whose samples fit.
int64_t fitting_micro_batch(int64_t batch, int64_t sample_tokens) {
  int64_t n = std::max<int64_t>(std::min(batch, kTokensAtOnce / sample_tokens), 1);
  while (batch % n != 0) --n;
  return n;
}

}  // namespace

RunData open_data(const TrainConfig& c) {
  if (!c.data.task.empty()) return open_tasks(c);
  RunData d;
  data::LoaderOptions o{mode_of(c.data.mode), c.data.length, c.data.shuffle, c.train.seed};
  d.train_corpus = std::make_unique<data::Corpus>(c.data.train);
  d.train = std::make_unique<data::Loader>(*d.train_corpus, o);
  if (c.data.valid.empty()) return d;
  d.valid_corpus = std::make_unique<data::Corpus>(c.data.valid);
  if (d.valid_corpus->tokenizer_hash() != d.train_corpus->tokenizer_hash() ||
      d.valid_corpus->vocab_size() != d.train_corpus->vocab_size()) {
    fail_data(fmt::format("[data] train and valid come from different tokenizers: {:016x} and {:016x}",
                          d.train_corpus->tokenizer_hash(), d.valid_corpus->tokenizer_hash()));
  }
  o.shuffle = false;
  d.valid = std::make_unique<data::Loader>(*d.valid_corpus, o);
  return d;
}

ModelSpec model_spec(const TrainConfig& c, const RunData& d) {
  const int64_t vocab = d.valid ? std::max(d.train->vocab_size(), d.valid->vocab_size()) : d.train->vocab_size();
  ModelSpec spec;
  try {
    const auto checkpoint = configuration(c.model, vocab);
    spec = find_family(*checkpoint).parse(*checkpoint);
    config_json(spec, CheckpointForm::kAuto);  // what could not be saved must not be trained
  } catch (const Error& e) {
    throw Error(e.code() == ErrorCode::kUsage ? ErrorCode::kBadData : e.code(), c.model.place + ": " + e.what());
  }
  if (spec.vocab_size < vocab) {
    fail_data(fmt::format("{}: the model has {} ids, the data has {}", c.model.place, spec.vocab_size, vocab));
  }
  return spec;
}

ParamStore first_params(const TrainConfig& c, const ModelSpec& spec, ThreadPool& pool) {
  if (c.model.from.empty()) return random_params(spec, c.model.seed, DType::kF32, pool);
  const auto checkpoint = io::Checkpoint::open(c.model.from);
  return load_params(*checkpoint, find_family(*checkpoint), spec, &pool);
}

std::optional<FirstAdapter> first_adapter(const TrainConfig& c, const ModelSpec& spec, const ParamStore& params,
                                          const Runtime& runtime) {
  if (!c.lora.enabled) return std::nullopt;
  FirstAdapter first;
  try {
    if (!c.lora.settings.targets.empty()) first.adapter = new_adapter(spec, c.lora.settings, c.train.seed);
  } catch (const Error& e) {
    throw Error(e.code() == ErrorCode::kUsage ? ErrorCode::kBadData : e.code(), e.what());
  }
  first.adapter.name = "trained";
  const Model base(spec, params, runtime);
  if (c.lora.initial_states) add_initial_states(first.adapter, base);
  first.base = base.fingerprint();
  return first;
}

Distillation distillation(const TrainConfig& c, const ModelSpec& spec, const Runtime& runtime) {
  Distillation d;
  if (c.distill.teacher.empty()) return d;
  d.teacher = load_model(c.distill.teacher, runtime).model;
  d.weight = static_cast<float>(c.distill.weight);
  d.temperature = static_cast<float>(c.distill.temperature);
  if (d.teacher->vocab_size() != spec.vocab_size) {
    fail_data(fmt::format("[distill] {} has {} ids, the model {}: they must have one vocabulary", c.distill.teacher,
                          d.teacher->vocab_size(), spec.vocab_size));
  }
  return d;
}

TrainModelOptions model_options(const TrainConfig& c, const std::optional<FirstAdapter>& first, Distillation d) {
  TrainModelOptions o;
  o.distillation = std::move(d);
  if (first) o.adapter = first->adapter;
  o.dropout_seed = c.train.seed;
  o.weights = c.train.weights == "bf16" ? DType::kBF16 : DType::kF32;
  o.checkpoint = c.train.checkpoint;
  o.segment = c.train.segment;
  o.z_loss = static_cast<float>(c.train.z_loss);
  return o;
}

TrainerOptions trainer_options(const TrainConfig& c, const RunData& d) {
  TrainerOptions o;
  const bool is_task = !c.data.task.empty();
  o.batch = c.train.batch > 0 ? c.train.batch : c.train.batch_tokens / c.data.length;
  const int64_t sample_tokens = is_task ? d.train->samples({}, 1).n_tokens() : c.data.length;
  o.micro_batch = c.train.micro_batch > 0 ? c.train.micro_batch : fitting_micro_batch(o.batch, sample_tokens);
  if (static_cast<double>(o.batch) * static_cast<double>(sample_tokens) > kMostTokens) {
    fail_data(fmt::format("[train] a batch of {} samples of {} tokens is more than the {:.0e} that a step may have",
                          o.batch, sample_tokens, kMostTokens));
  }
  const int64_t step_tokens = o.batch * c.data.length;
  const int64_t steps = c.train.steps > 0 ? c.train.steps : (c.train.tokens + step_tokens - 1) / step_tokens;
  o.schedule = {LrSchedule::shape_of(c.schedule.shape),
                c.schedule.peak,
                c.schedule.final,
                steps,
                share_of(c.schedule.warmup, steps),
                share_of(c.schedule.decay, steps)};
  o.optimizer = c.optimizer;
  o.clip = c.train.clip;
  o.ema = c.train.ema;
  if (d.valid) {
    o.valid_every = interval(c.validation.every, steps);
    const int64_t all = d.valid->epoch_samples();
    o.valid_samples = c.validation.batches > 0 ? std::min(c.validation.batches * o.batch, all) : all;
  }
  o.save_every = interval(c.save.every, steps);
  o.keep_last = c.save.keep_last;
  o.keep_best = d.valid && c.save.best;
  if (!c.sample.prompts.empty()) o.sample_every = interval(c.sample.every, steps);
  o.patience = c.stop.patience;
  return o;
}

Identity identity_of(const TrainConfig& c, const TrainerOptions& o, const ModelSpec& spec, const RunData& d,
                     const std::optional<FirstAdapter>& first, const Distillation& follows) {
  Identity id;
  flatten("model", config_json(spec, CheckpointForm::kAuto), id);
  if (c.model.from.empty()) id["model.seed"] = std::to_string(c.model.seed);
  const auto number = [](double v) { return Json(v).dump(); };
  if (first) {
    const LoraSettings& s = c.lora.settings;
    id["lora.base"] = fmt::format("{:016x}", first->base);
    id["lora.rank"] = std::to_string(s.rank);
    id["lora.alpha"] = number(s.alpha);
    id["lora.dropout"] = number(s.dropout);
    id["lora.rslora"] = s.rslora ? "true" : "false";
    id["lora.targets"] = fmt::format("{}", fmt::join(s.targets, ", "));
    if (!s.exclude.empty()) id["lora.exclude"] = fmt::format("{}", fmt::join(s.exclude, ", "));
    id["lora.initial_states"] = c.lora.initial_states ? "true" : "false";
  }
  if (follows.teacher) {
    id["distill.teacher"] = fmt::format("{:016x}", follows.teacher->fingerprint());
    id["distill.weight"] = number(c.distill.weight);
    id["distill.temperature"] = number(c.distill.temperature);
  }
  if (d.train_corpus) {
    id["data.mode"] = c.data.mode;
    id["data.length"] = std::to_string(c.data.length);
    id["data.shuffle"] = c.data.shuffle ? "true" : "false";
    id["data.tokens"] = std::to_string(d.train_corpus->n_tokens());
    id["data.content"] = fmt::format("{:016x}", d.train_corpus->fingerprint());
    id["data.tokenizer"] = fmt::format("{:016x}", d.train_corpus->tokenizer_hash());
  } else {
    id["data.task"] = c.data.task;
    for (const auto& [key, value] : c.data.options) id["data.options." + key] = value;
  }
  id["data.fingerprint"] = fmt::format("{:016x}", d.train->fingerprint());
  // The best checkpoint and `patience` compare losses on them.
  if (d.valid) id["data.valid_fingerprint"] = fmt::format("{:016x}", d.valid->fingerprint());
  id["optimizer.name"] = o.optimizer.name;
  id["optimizer.beta1"] = number(o.optimizer.beta1);
  id["optimizer.beta2"] = number(o.optimizer.beta2);
  if (o.optimizer.name != "lion") id["optimizer.eps"] = number(o.optimizer.eps);
  id["optimizer.weight_decay"] = number(o.optimizer.weight_decay);
  id["schedule.shape"] = c.schedule.shape;
  id["schedule.peak"] = number(o.schedule.peak);
  if (c.schedule.shape != "constant") id["schedule.final"] = number(o.schedule.final);
  id["schedule.warmup"] = std::to_string(o.schedule.warmup) + " steps";
  if (c.schedule.shape == "wsd") id["schedule.decay"] = std::to_string(o.schedule.decay) + " steps";
  id["train.steps"] = std::to_string(o.schedule.steps);
  id["train.batch"] = std::to_string(o.batch);
  id["train.seed"] = std::to_string(c.train.seed);
  id["train.clip"] = number(o.clip);
  id["train.z_loss"] = number(c.train.z_loss);
  id["train.ema"] = number(o.ema);
  id["train.weights"] = c.train.weights;
  id["train.segment"] = std::to_string(c.train.segment);
  return id;
}

}  // namespace krait::train
