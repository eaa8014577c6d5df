#include "run_report.h"

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace krait::cli {
namespace {

using nlohmann::ordered_json;

ordered_json describe(const TokenLogprob& t, const text::Tokenizer& tokenizer) {
  // JSON has no infinity: a token of probability zero has null.
  return {{"id", t.id},
          {"token", tokenizer.token_bytes(t.id)},
          {"logprob", std::isfinite(t.logprob) ? ordered_json(t.logprob) : ordered_json(nullptr)}};
}

ordered_json describe(const Choice& c, const Job& job) {
  const text::Tokenizer& tokenizer = *job.session.tokenizer;
  ordered_json j = {{"text", c.text}, {"ids", c.ids}, {"finish_reason", c.finish_reason}};
  if (c.stop_string) j["stop"] = *c.stop_string;
  if (c.stop_id) j["stop_id"] = *c.stop_id;
  if (c.score) j["score"] = *c.score;
  if (c.logprob) j["logprob"] = *c.logprob;
  if (!job.args.has_logprobs) return j;
  j["logprobs"] = ordered_json::array();
  for (const Logprobs& l : c.logprobs) {
    ordered_json token = describe(l.chosen, tokenizer);
    token["top"] = ordered_json::array();
    for (const TokenLogprob& t : l.top) token["top"].push_back(describe(t, tokenizer));
    j["logprobs"].push_back(std::move(token));
  }
  return j;
}

std::string duration_text(double seconds) {
  char s[32];
  std::snprintf(s, sizeof s, seconds < 1 ? "%.1f ms" : "%.2f s", seconds < 1 ? 1000 * seconds : seconds);
  return s;
}

}  // namespace

std::string report_json(const Job& job, const Outcome& o, double load_seconds) {
  ordered_json j;
  if (job.args.parallel == 1) {
    j = describe(o.choices.front(), job);
  } else {
    j["choices"] = ordered_json::array();
    for (const Choice& c : o.choices) j["choices"].push_back(describe(c, job));
  }
  if (job.args.beams == 0 && job.args.temperature != 0 && (!job.start || job.args.has_seed))
    j["seed"] = job.sampler.seed;
  if (!job.args.save_state.empty()) j["state"] = job.args.save_state;
  j["timings"] = {{"load_ms", 1000 * load_seconds},
                  {"prompt_tokens", o.prompt_read},
                  {"prompt_ms", 1000 * o.prompt_seconds},
                  {"first_token_ms", 1000 * o.first_token_at},
                  {"generated", o.written()},
                  {"gen_ms", 1000 * o.write_seconds},
                  {"tokens_per_second", o.tokens_per_second()}};
  return j.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

std::string report_line(int64_t read, double read_seconds, int64_t written, double write_seconds) {
  char rate[32] = "";
  if (written > 0 && write_seconds > 0) {
    std::snprintf(rate, sizeof rate, " (%.1f tokens/s)", static_cast<double>(written) / write_seconds);
  }
  return "read " + std::to_string(read) + " tokens in " + duration_text(read_seconds) + ", wrote " +
         std::to_string(written) + " in " + duration_text(write_seconds) + rate;
}

}  // namespace krait::cli
