// TrainConfig: what a run is to do, as its TOML file says (docs/train.md lists every key). Read strictly: an unknown
// key, a wrong type and a key without effect are errors with their lines.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "krait/data/tasks/task.h"
#include "krait/io/json.h"
#include "krait/models/adapter.h"
#include "krait/train/optimizer.h"

namespace krait::train {

struct ModelConfig {
  std::string config, from;  // a config.json, or a checkpoint whose weights are the first; both empty: `keys`
  io::Json keys;             // of a config.json in the original form; without vocab_size: that of the data
  uint64_t seed = 1;         // of fresh weights
  std::string place;         // of the table, for messages
};

// A table [lora]: the weights of `from` stay as they are, an adapter learns.
struct LoraConfig {
  bool enabled = false;
  LoraSettings settings;        // without targets: no factors
  bool initial_states = false;  // the states that sequences begin with learn, too
};

// A table [distill]: the model learns to follow another one.
struct DistillConfig {
  std::string teacher;  // folder or file of a model; empty: none
  double weight = 0.5, temperature = 2;
};

struct DataConfig {
  std::vector<std::string> train, valid;  // shards, folders, patterns (data::Corpus)
  std::string mode = "contiguous";        // contiguous, packed or windows
  int64_t length = 1024;                  // tokens of a sample
  bool shuffle = true;
  std::string tokenizer;  // file or folder that goes into every checkpoint
  std::string task;       // instead of shards
  data::TaskConfig options, valid_options;
};

struct ScheduleConfig {
  std::string shape = "cosine";
  double peak = 1e-3, final = 0;
  double warmup = 0.1, decay = 0.2;  // shares of the run; decay: wsd only
};

struct LoopConfig {
  int64_t steps = 0, tokens = 0;        // one of them
  int64_t batch = 0, batch_tokens = 0;  // one of them; batch: samples
  int64_t micro_batch = 0;              // samples; 0: what fits in 8192 tokens
  uint64_t seed = 1;                    // of the order of the data
  double clip = 1.0;                    // of the gradient norm; 0: none
  double z_loss = 0;                    // coefficient
  double ema = 0;                       // decay of the averaged weights; 0: none
  std::string weights = "f32";          // what matrices are rounded to in a step: f32, bf16
  bool checkpoint = false;              // activations are computed again on the way back
  int64_t segment = 0;                  // tokens on the tape at once; 0: all
  int64_t threads = 0;                  // 0: all CPUs
};

struct ValidationConfig {
  int64_t every = 0;    // steps; 0: a tenth of the run
  int64_t batches = 0;  // of `batch` samples; 0: all there are
};

struct SaveConfig {
  int64_t every = 0;  // steps; 0: a tenth of the run
  int64_t keep_last = 2;
  bool best = true;  // the one of the least validation loss is kept too
};

struct SampleConfig {
  std::vector<std::string> prompts;
  int64_t every = 0;  // steps; 0: a tenth of the run
  int64_t tokens = 64;
  double temperature = 0.8;
};

struct StopConfig {
  int64_t patience = 0;  // validations in a row without a new best one; 0: never
};

struct TrainConfig {
  ModelConfig model;
  LoraConfig lora;
  DistillConfig distill;
  DataConfig data;
  OptimizerOptions optimizer;
  ScheduleConfig schedule;
  LoopConfig train;
  ValidationConfig validation;
  SaveConfig save;
  SampleConfig sample;
  StopConfig stop;

  bool validates() const { return !data.task.empty() || !data.valid.empty(); }
};

// `changes`: KEY=VALUE as in parse_settings. One kBadData names every mistake.
TrainConfig parse_config(std::string_view text, const std::string& name, const std::vector<std::string>& changes = {});
TrainConfig read_config(const std::filesystem::path&, const std::vector<std::string>& changes = {});

}  // namespace krait::train
