// Engine: requests -> tokens, many at once. Each tick packs prefill chunks and decode tokens of all running sequences
// into one forward pass; what a request gets does not depend on what runs beside it, bit for bit.
// Token ids only: text, stop strings and templates live above, in the callback.
#pragma once
#include <atomic>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "krait/infer/sampler.h"
#include "krait/infer/state.h"
#include "krait/infer/state_pool.h"

namespace krait {

// A token as it is chosen.
struct GeneratedToken {
  int64_t sequence = 0;  // 0 .. n-1: which of the request's sequences
  int64_t index = 0;     // 0: the first token generated
  int32_t id = 0;
  std::optional<Logprobs> logprobs;  // if the request asked for them
};

struct Request {
  std::vector<int32_t> prompt;  // may be empty only on top of a `start` that has read something
  int64_t max_new_tokens = 0;   // 0: the prompt is read, and nothing more
  SamplerParams sampler;
  std::optional<int32_t> adapter;   // of the model, −1: none; not given: the model's default
  std::vector<int32_t> stop_ids;    // choosing one ends the sequence; it is neither delivered nor read
  int64_t n = 1;                    // sequences forked off after the prompt; sequence i draws from stream + i
  std::optional<int64_t> logprobs;  // with every token: its own log probability and those of the best so many
  // Goes on from here: the prompt is read on top, or, if it is empty, the first token comes from the state's logits.
  std::shared_ptr<const State> start;
  // Draw from sampler.seed and .stream from 0 on, instead of where `start` left off; without a start always so.
  bool new_rng = false;
  bool keep_state = false;  // Generation::state is wanted
  // Called for every token, in order within a sequence; false ends that sequence (the token counts as generated).
  std::function<bool(const GeneratedToken&)> on_token;
  bool leave_last_unread = false;  // a token at which on_token says false is not read: the state stands before it
  // Positions inside the prompt, ascending, 1 .. prompt.size(): the state that has read so many of its tokens is handed
  // to on_mark. Forward passes end there, which changes no bit of anything.
  std::vector<int64_t> marks;
  std::function<void(std::shared_ptr<const State>)> on_mark;
  // Called as the prompt is read.
  std::function<void(int64_t tokens_read, int64_t tokens_in_all)> on_prefill;
};

enum class FinishReason : uint8_t {
  kLength,     // max_new_tokens
  kStopId,     // one of stop_ids was chosen
  kCallback,   // on_token returned false
  kCancelled,  // EngineOptions::cancel, Engine::cancel
};
const char* name_of(FinishReason);  // "length", "stop", "callback", "cancelled"

struct Generation {
  std::vector<int32_t> ids;        // as delivered
  std::vector<Logprobs> logprobs;  // one an id, if asked for
  FinishReason reason = FinishReason::kLength;
  std::optional<int32_t> stop_id;  // with kStopId: which
  // If keep_state: has read the start, the prompt and exactly `ids` (not the stop id, nor the last one if
  // leave_last_unread); after a cancellation amid the prompt, the first Result::prompt_read tokens of it. Null if
  // Engine::cancel() ended the sequence while it wrote.
  std::shared_ptr<const State> state;
};

struct Result {
  std::vector<Generation> generations;  // n; one if the prompt was not finished
  int64_t prompt_read = 0;              // tokens of the prompt that went through the model (once, whatever n is)
  std::exception_ptr error;             // why the request failed, if it did; others are not affected
};

struct EngineOptions {
  int64_t max_sequences = 16;                 // state slots: more sequences wait
  int64_t max_batch_tokens = kPrefillChunk;   // tokens of one forward pass; >= 1
  int64_t vocab = 0;                          // ids below it may be sampled; 0: the model's vocabulary
  const std::atomic<bool>* cancel = nullptr;  // looked at before each tick; true ends all that runs and waits, cleanly
};

// Sequences of an engine, now.
struct EngineLoad {
  int64_t reading = 0, writing = 0;  // in slots: amid the prompt, behind it
  int64_t waiting = 0;               // for a slot
};

// Tokens of one forward pass.
struct PassTokens {
  int64_t prompt = 0, generated = 0;
};

inline constexpr int64_t kAnyTokens = std::numeric_limits<int64_t>::max();

class Engine {
 public:
  // `model` must outlive the engine. Throws kUsage on options out of range.
  explicit Engine(const Model& model, EngineOptions options = {});
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // One request alone. Throws what made it fail.
  Result run(Request request);
  // All of them, as many at a time as there are slots; results in the order of the requests. A request that fails has
  // its `error` set.
  std::vector<Result> run(std::vector<Request> requests);

  // The pieces of run(), for callers whose requests come and go.
  // Throws kUsage or kBadData if the request makes no sense for this model. Returns its number.
  int64_t submit(Request request);
  // One forward pass; false: nothing is left to do. It takes at most so many tokens of prompts; 0: none, as long as
  // others write.
  bool tick(int64_t prompt_tokens = kAnyTokens);
  std::optional<Result> take(int64_t request);  // once it is finished
  // Its sequences end at the beginning of the next tick, which gives their slots away again. No effect once it is
  // finished; throws kUsage if there is no such request.
  void cancel(int64_t request);

  const StatePool& pool() const;
  EngineLoad load() const;
  const PassTokens& last_pass() const;  // of the last tick

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Beam search: the likeliest continuations instead of random ones. Deterministic.
struct BeamRequest {
  std::vector<int32_t> prompt;  // as in Request
  std::shared_ptr<const State> start;
  int64_t max_new_tokens = 0;  // >= 1
  int64_t beams = 4;           // >= 1
  int64_t n_best = 1;          // hypotheses wanted, 1 .. beams
  double length_penalty = 1;   // hypotheses are ranked by Σ log p / length^length_penalty
  // Stop as soon as `beams` hypotheses have ended; otherwise go on until no running one can still overtake them.
  bool early_stop = false;
  SamplerParams sampler;          // penalties and bias change the logits that p comes from; temperature 0
  std::vector<int32_t> stop_ids;  // end a hypothesis; their log p counts, they are not part of `ids`
  // Whether the last of these ids ends the hypothesis; it is part of `ids`. None: never.
  std::function<bool(std::span<const int32_t> ids)> ends;
  std::optional<int64_t> logprobs;  // as in Request
  bool keep_state = false;
};
struct Hypothesis {
  std::vector<int32_t> ids;
  double logprob = 0;                  // Σ log p, the stop id's included
  double score = 0;                    // what they are ranked by; the length counts the stop id
  std::optional<int32_t> stop_id;      // none: ended by max_new_tokens, `ends` or `cancel`
  bool cancelled = false;              // had not ended
  std::vector<Logprobs> logprobs;      // one an id, if asked for
  std::shared_ptr<const State> state;  // has read `ids`, not the stop id; if keep_state
};
// Best first; equal scores in the order in which they were found. `vocab` as in EngineOptions. If `cancel` becomes
// true, the best that there are by then; none before the first token. Throws kUsage on options that make no sense.
std::vector<Hypothesis> beam_search(const Model& model, const BeamRequest& request, int64_t vocab = 0,
                                    const std::atomic<bool>* cancel = nullptr);

}  // namespace krait
