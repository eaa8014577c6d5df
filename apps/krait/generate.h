// One prompt -> texts, with what is known about each: the middle of `krait run`.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "krait/infer/engine.h"
#include "run_options.h"
#include "terminal.h"

namespace krait::cli {

// Seconds since the program began.
double uptime();

// A text that was written.
struct Choice {
  std::string text;  // as shown: without special tokens and stop strings
  std::vector<int32_t> ids;
  std::vector<Logprobs> logprobs;
  std::string finish_reason;               // length, stop, interrupted, closed (the reader of the output went away)
  std::optional<std::string> stop_string;  // what ended it, if one of these did
  std::optional<int32_t> stop_id;
  std::optional<double> score, logprob;  // of a beam
  std::shared_ptr<const State> state;    // has read the prompt and `ids`
};

struct Outcome {
  std::vector<Choice> choices;
  int64_t prompt_tokens = 0, prompt_read = 0;  // less were read only if interrupted
  double prompt_seconds = 0, write_seconds = 0, first_token_at = 0;

  int64_t written() const;
  double tokens_per_second() const;
};

struct Job {
  const RunArgs& args;
  const Session& session;
  std::vector<int32_t> prompt;
  std::shared_ptr<const State> start;
  SamplerParams sampler;
  std::vector<int32_t> stop_ids;
};

// Draws texts; with one of them and `shown`, it is written there as it comes.
Outcome draw(const Job& job, Output* shown);
Outcome search_beams(const Job& job);

}  // namespace krait::cli
