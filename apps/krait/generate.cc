#include "generate.h"

#include <chrono>
#include <limits>

#include "krait/core/error.h"
#include "krait/text/token_text.h"
#include "progress.h"

namespace krait::cli {
namespace {

using Clock = std::chrono::steady_clock;
const Clock::time_point kStarted = Clock::now();

int64_t token_limit(int64_t n) { return n < 0 ? std::numeric_limits<int64_t>::max() : n; }

std::string reason_of(const Generation& g, const Choice& c, const Output* shown) {
  if (c.stop_string || g.reason == FinishReason::kStopId) return "stop";
  if (g.reason == FinishReason::kCancelled) return "interrupted";
  if (g.reason == FinishReason::kCallback && shown != nullptr && shown->closed()) return "closed";
  return "length";
}

// The text of these tokens, up to a stop string.
text::TokenText shown(const Job& job, std::span<const int32_t> ids) {
  text::TokenText text(*job.session.tokenizer, job.args.stop);
  for (const int32_t id : ids) {
    text.push(id);
    if (text.stop() != nullptr) break;
  }
  text.finish();
  return text;
}

}  // namespace

double uptime() { return std::chrono::duration<double>(Clock::now() - kStarted).count(); }

int64_t Outcome::written() const {
  int64_t n = 0;
  for (const Choice& c : choices) n += static_cast<int64_t>(c.ids.size());
  return n;
}

double Outcome::tokens_per_second() const {
  return write_seconds > 0 ? static_cast<double>(written()) / write_seconds : 0;
}

Outcome draw(const Job& job, Output* shown) {
  const RunArgs& a = job.args;
  Outcome out;
  out.prompt_tokens = static_cast<int64_t>(job.prompt.size());
  std::vector<text::TokenText> texts(static_cast<size_t>(a.parallel), text::TokenText(*job.session.tokenizer, a.stop));
  ProgressBar bar("reading the prompt", out.prompt_tokens, "tokens");
  const double begin = uptime();
  double read_at = begin;

  Request r;
  r.prompt = job.prompt;
  r.start = job.start;
  r.max_new_tokens = token_limit(a.n_predict);
  r.sampler = job.sampler;
  r.stop_ids = job.stop_ids;
  r.n = a.parallel;
  if (a.has_logprobs) r.logprobs = a.logprobs;
  r.new_rng = a.has_seed && job.start;
  r.keep_state = !a.save_state.empty();
  int64_t seen = 0;
  r.on_prefill = [&](int64_t read, int64_t all) {
    bar.advance(read - std::exchange(seen, read));
    if (read < all) return;
    bar.finish();
    read_at = uptime();
  };
  r.on_token = [&](const GeneratedToken& t) {
    if (out.first_token_at == 0) out.first_token_at = uptime();
    text::TokenText& text = texts[static_cast<size_t>(t.sequence)];
    const std::string part = text.push(t.id);
    if (shown != nullptr && !shown->try_write(part)) return false;
    return text.stop() == nullptr;
  };
  Engine engine(job.session.model(),
                {.max_sequences = a.parallel, .vocab = job.session.sampled_vocab(), .cancel = &Signals::interrupted()});
  Result result = engine.run(std::move(r));
  if (shown != nullptr) {
    shown->rethrow();
    shown->write(texts[0].finish());
  }
  out.prompt_read = result.prompt_read;
  out.prompt_seconds = read_at - begin;
  out.write_seconds = uptime() - read_at;
  for (size_t i = 0; i < result.generations.size(); ++i) {
    Generation& g = result.generations[i];
    Choice c;
    if (shown == nullptr) texts[i].finish();
    c.text = texts[i].text();
    c.ids = std::move(g.ids);
    c.logprobs = std::move(g.logprobs);
    if (texts[i].stop() != nullptr) c.stop_string = *texts[i].stop();
    c.stop_id = g.stop_id;
    c.finish_reason = reason_of(g, c, shown);
    c.state = std::move(g.state);
    out.choices.push_back(std::move(c));
  }
  return out;
}

Outcome search_beams(const Job& job) {
  const RunArgs& a = job.args;
  Outcome out;
  out.prompt_tokens = out.prompt_read = static_cast<int64_t>(job.prompt.size());
  BeamRequest r;
  r.prompt = job.prompt;
  r.start = job.start;
  r.max_new_tokens = a.n_predict;
  r.beams = a.beams;
  r.n_best = a.parallel;
  r.length_penalty = a.length_penalty;
  r.sampler = job.sampler;
  r.stop_ids = job.stop_ids;
  if (!a.stop.empty()) {
    r.ends = [&](std::span<const int32_t> ids) { return shown(job, ids).stop() != nullptr; };
  }
  if (a.has_logprobs) r.logprobs = a.logprobs;
  r.keep_state = !a.save_state.empty();
  const SlowNotice notice("searching");
  const double begin = uptime();
  auto found = beam_search(job.session.model(), r, job.session.sampled_vocab(), &Signals::interrupted());
  out.write_seconds = uptime() - begin;
  out.first_token_at = uptime();
  for (Hypothesis& h : found) {
    Choice c;
    const text::TokenText text = shown(job, h.ids);
    c.text = text.text();
    if (text.stop() != nullptr) c.stop_string = *text.stop();
    c.ids = std::move(h.ids);
    c.logprobs = std::move(h.logprobs);
    c.stop_id = h.stop_id;
    c.finish_reason = h.stop_id || c.stop_string ? "stop" : h.cancelled ? "interrupted" : "length";
    c.score = h.score;
    c.logprob = h.logprob;
    c.state = std::move(h.state);
    out.choices.push_back(std::move(c));
  }
  return out;
}

}  // namespace krait::cli
