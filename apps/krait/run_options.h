// The options of `krait run`: what they are, which go together, what they mean for the engine.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "krait/infer/engine.h"
#include "krait/text/chat_template.h"
#include "session.h"

namespace krait::cli {

struct RunArgs {
  ModelArgs model;
  std::string model_option;  // -m
  std::string prompt, file, system, chat_template, save_state, load_state;
  std::vector<std::string> stop, logit_bias;
  std::vector<int64_t> stop_id;
  int64_t n_predict = 256, top_k = 40, repeat_last_n = -1, seed = 0, parallel = 1, beams = 0, logprobs = 0;
  double temperature = 0.8, top_p = 0.95, min_p = 0, length_penalty = 1;
  double repeat_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  bool ignore_eos = false, json = false, interactive = false, lossy_utf8 = false, no_display_prompt = false,
       verbose = false;
  // Whether given on the command line.
  bool has_prompt = false, has_file = false, has_n = false, has_seed = false, has_logprobs = false,
       has_template = false;

  bool templated() const { return has_template && chat_template != "none"; }
};

void add_run_options(Command& command, RunArgs& args);
// Notes which options were given, settles whether this is a chat, and throws kUsage on options that cannot take effect.
void check_run_options(const Command& command, RunArgs& args);

// What the text is encoded from: -p, -f or standard input, without one newline at its end. Throws kBadData if it is not
// UTF-8.
std::string prompt_text(const RunArgs& args);
// Throws kUsage on ids out of range, malformed biases, and options that this model cannot honour.
SamplerParams sampler_params(const RunArgs& args, const Session& session);
std::vector<int32_t> stop_ids(const RunArgs& args, const Session& session);
// Null: plain text. In a chat the model's own template is used if it has one.
std::unique_ptr<text::ChatTemplate> chat_template(const RunArgs& args, const text::Tokenizer& tokenizer);

}  // namespace krait::cli
