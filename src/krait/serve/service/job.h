// What the service knows of a request on its way, and of a reading of its own.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "krait/serve/service/service.h"
#include "krait/text/token_text.h"

namespace krait::serve {

using Time = std::chrono::nanoseconds;  // of Clock::steady()

inline double seconds(Time t) { return std::chrono::duration<double>(t).count(); }

enum class Stage : uint8_t {
  kPreparing,   // on a worker: conversation, tokens
  kQueued,      // for a slot
  kWaiting,     // for a reading whose tokens it begins with
  kFinding,     // on a worker: a state to begin with; a slot is promised
  kReady,       // to be given to the engine
  kRunning,     // in the engine
  kCommitting,  // on a worker: the turn becomes durable
  kEnded,
};

// A sequence's answer as it comes.
struct Choice {
  text::TokenText text;
  std::optional<Time> last_token;
};

// One thread at a time works on a job: the one of its stage. What several touch is said.
struct Job {
  int64_t ticket = 0;
  GenerateRequest request;
  std::shared_ptr<Listener> listener;
  Stage stage = Stage::kPreparing;      // under the service's lock
  std::optional<ServeError> cancelled;  // why it shall end; under the service's lock

  std::unique_ptr<Conversations::Hold> hold;
  std::optional<std::string> forked;  // a conversation made for this request alone
  int64_t imported = 0;               // tokens before `all`, which only a state knows (Conversation::imported)
  SharedIds all;                      // tokens of the conversation before, then of the input
  // With a conversation: where it stood, and where it stands with the input read.
  std::optional<PrefixMark> begin_mark, end_mark;
  int64_t before = 0;         // of them, of the conversation
  std::vector<int64_t> cuts;  // places in `all` between messages of the input
  PrefixHit hit;
  bool has_waited = false;  // for a reading: once is enough

  Time submitted{}, queued{}, started{};
  std::optional<Time> first_token;
  Usage usage;
  int64_t engine = 0;  // its number there
  std::vector<Choice> choices;
  bool unflushed = false;  // its listener has deltas of this pass
  // The state that has read `all`, from when it is read; where the answer is read again from.
  std::shared_ptr<const State> prompt_end;

  bool has_thread() const {
    const Thread& t = request.thread;
    return t.conversation || t.previous_response || t.keep;
  }
  std::span<const int32_t> prompt() const { return all.span().subspan(static_cast<size_t>(before)); }
  int64_t prompt_tokens() const { return imported + std::ssize(all.span()); }
};
using JobPtr = std::shared_ptr<Job>;

// Tokens that are read for later use, while nobody else wants the slot: a history as its next request will have it.
struct Reading {
  std::string tenant;
  int32_t adapter = -1;
  int64_t imported = 0;  // as in Job
  SharedIds ids;
  std::shared_ptr<const State> from;  // has read the first of them; null: none
  bool urgent = false;                // somebody waits
  std::vector<JobPtr> jobs;           // that wait
  std::vector<std::function<void(std::shared_ptr<const State>, std::exception_ptr)>> then;
  std::optional<int64_t> engine;  // its number there, while it runs
  bool stopped = false;           // to make room: it goes on later
};
using ReadingPtr = std::shared_ptr<Reading>;

}  // namespace krait::serve
