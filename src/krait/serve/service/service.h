// Service: requests in, tokens out, many at once: admission, queue, priorities, the engine's loop, conversations and
// the prefix cache around it. Knows text and tokens, nothing of HTTP or JSON.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "krait/infer/engine.h"
#include "krait/serve/cache/conversations.h"
#include "krait/serve/clock.h"
#include "krait/serve/serve_error.h"
#include "krait/text/chat_template.h"
#include "krait/text/tokenizer.h"

namespace krait::serve {

// What is to be read.
struct Input {
  // One of the three.
  std::optional<std::string> text;          // as it is: a prompt of /generate or /v1/completions
  std::optional<std::vector<int32_t>> ids;  // the same, as tokens
  std::vector<text::Message> messages;      // through the chat template, opening the assistant's turn
};

// Names the conversation that a request goes on with, or begins.
struct Thread {
  std::optional<std::string> conversation;       // by its id; begun if it does not exist
  std::optional<std::string> previous_response;  // behind that response; from one that is not the last, a fork
  bool keep = false;                             // without either: keep this request as a new conversation
  bool discard = false;                          // with previous_response: go on behind it, and keep nothing of it
  // The conversation must stand behind this response ("": at its beginning); else 409 "conversation_changed".
  std::optional<std::string> behind = {};
  bool instructs = false;  // the input begins with instructions: 400 behind what was read before
};

struct GenerateRequest {
  std::string id;        // of the response: "cmpl-…"; unique
  std::string tenant;    // whose ("" without API keys): conversations and cached states of others do not exist
  int32_t adapter = -1;  // of the model; −1: the model as it is. What it goes on from must have been read with the same
  Input input;
  Thread thread;             // n must be 1 with any of it
  int64_t max_tokens = 512;  // 0: only read the input
  SamplerParams sampler;     // seed: always set (the API draws one if the client gave none)
  std::vector<std::string> stops;
  bool ignore_eos = false;
  int64_t n = 1;                          // answer i draws from stream sampler.stream + i
  std::optional<int64_t> logprobs;        // as in Request
  int priority = 0;                       // -100 … 100: larger ones first
  std::chrono::milliseconds max_wait{0};  // in the queue; beyond: 503 "queue_timeout"; 0: the service's own limit
};

// A piece of an answer: what one token added to the text. Tokens that add nothing yet (half a character, the beginning
// of what may be a stop string) come too, with empty text.
struct Delta {
  int64_t choice = 0;  // 0 … n-1
  int32_t token = 0;
  std::string text;        // whole characters; nothing of a stop string; special tokens are empty
  std::string token_text;  // the token's own bytes, for logprobs (may be part of a character)
  std::optional<Logprobs> logprobs;
};

struct ChoiceEnd {
  std::string text;           // all of it
  std::string last_text;      // what was still held back when the last token came: the end of the stream of texts
  std::string finish_reason;  // "stop", "length", "cancelled"
  std::optional<std::string> stop_string;
  std::vector<int32_t> ids;
};

struct Usage {
  int64_t prompt_tokens = 0;               // all of the input, and of the conversation before it
  int64_t cached_tokens = 0;               // of them: not read, because a state had read them
  int64_t completion_tokens = 0;           // over all choices
  MissReason miss = MissReason::kNone;     // why cached_tokens is not larger
  std::optional<std::string> behind = {};  // with a thread: the conversation's last response before this one, or ""
};
struct Timing {  // seconds
  double queued = 0, prefill = 0, decode = 0, total = 0;
  double first_token = 0;  // since the submission
};

struct Answer {
  std::vector<ChoiceEnd> choices;
  Usage usage;
  Timing timing;
  std::optional<std::string> conversation;  // with a thread: where it stands now, durable
  uint64_t seed = 0;
};

// What hears of a request. Called on the service's threads, one call at a time, in order; must not block.
// Exactly one of done() and failed() is the last call.
class Listener {
 public:
  virtual ~Listener() = default;
  virtual void started(const Usage&) {}  // admitted: prompt tokens are known
  virtual void delta(const Delta&) = 0;
  // After the deltas of a pass, one or more: who only took note of them passes them on now, when the engine's thread
  // has told everybody. done() and failed() may come without it.
  virtual void flush() {}
  virtual void done(const Answer&) = 0;
  virtual void failed(const ServeError&) = 0;
};

struct ServiceOptions {
  int64_t max_running = 16;               // sequences in the batch: state slots
  int64_t max_queue = 256;                // requests waiting; beyond: 429 with Retry-After
  int64_t max_queue_per_tenant = 0;       // 0: no limit of its own
  int64_t max_prompt_tokens = 1'000'000;  // beyond: 400
  int64_t max_tokens = 1'000'000;         // of an answer, beyond: 400
  int64_t max_n = 64;
  std::chrono::milliseconds max_wait{60'000};
  int64_t prefill_tokens = kPrefillChunk;  // of one pass while nobody is writing
  // While others are writing, a pass takes as many prompt tokens as keep it below this many times a pass without any.
  double max_stall = 3;
  int64_t checkpoint_every = 1024;  // tokens of a long prompt between kept states
  int64_t vocab = 0;                // as in EngineOptions
  bool prefix_cache = true;
};

struct ServiceStats {
  int64_t queued = 0, running = 0, slots = 0, free_slots = 0;  // now
  int64_t batch_tokens = 0;                                    // of the last pass
  int64_t passes = 0, prefill_tokens = 0, decode_tokens = 0;   // since the start
};

// Observed values, for the metrics. All may be empty; called on the service's threads, several at a time.
struct ServiceProbe {
  std::function<void(double seconds, int64_t prompt_tokens, int64_t sequences)> pass;
  std::function<void(double seconds)> first_token, between_tokens, queued;
  std::function<void(const Usage&)> prompt;
  // What went wrong inside, for the log: clients are told no more than 500.
  std::function<void(const std::string& request_id, const std::string& what)> fault;
};

class Service {
 public:
  // What it refers to must outlive it. `chat`: null if the model has no template and none was named.
  Service(const Model& model, const text::Tokenizer& tokenizer, const text::ChatTemplate* chat, PrefixCache& cache,
          Conversations& conversations, const Clock& clock, ServiceOptions options, ServiceProbe probe = {});
  ~Service();

  // Returns a ticket, or throws ServeError at once: 400 what makes no sense for this model, 429 queue full, 503
  // draining. Never blocks. What is only known later comes through failed(), before any delta: 404 no such conversation
  // or response, 400 "wrong_model" one that another adapter reads, 409 conversation busy, 400 a prompt without tokens
  // or with too many, a chat its template refuses.
  int64_t submit(GenerateRequest request, std::shared_ptr<Listener> listener);
  // The client has gone: its sequences end at once and their slots are free; with a thread nothing is committed.
  // failed() with status 499 follows. No effect on what has ended.
  void cancel(int64_t ticket);

  // Runs the engine until stop(); on the thread of the caller.
  void run();
  // One round of what run() does: admit, one forward pass, deliver, commit. False: nothing was left to do. For tests
  // that drive the service themselves, with a simulated clock.
  bool step();
  // No new requests (503); what runs and waits is finished within `patience`, then cancelled. True: all was finished.
  bool drain(std::chrono::milliseconds patience);
  void stop();

  // The state behind a conversation's last turn (or `turns` of them), computed if it is not at hand. Blocks until the
  // engine's loop has done it.
  std::shared_ptr<const State> state(const std::string& tenant, const std::string& conversation,
                                     std::optional<size_t> turns);

  // Throws kBadData, with the reason, unless a state from outside is one of this model, or of it with an adapter.
  void check_foreign(const State&) const;

  ServiceStats stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krait::serve
