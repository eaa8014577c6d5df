#include "krait/infer/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <utility>

#include "krait/core/error.h"
#include "krait/core/thread_pool.h"
#include "krait/infer/request_check.h"
#include "krait/infer/scheduler.h"

namespace krait {
namespace {

// A submitted request.
struct Job {
  Request request;
  Sampler sampler;
  Result result;
  int64_t open = 1;        // sequences that have not ended
  bool cancelled = false;  // they shall
};
using JobPtr = std::shared_ptr<Job>;

// A sequence that waits for a slot: a request's first, which reads the prompt, or one forked off after it.
struct Waiting {
  JobPtr job;
  int64_t index;
  std::shared_ptr<const State> from;  // null: the beginning
};

// A sequence in a slot.
struct Running {
  JobPtr job;
  int64_t index;
  Sequence sequence;
  std::vector<int32_t> pending = {};  // unread tokens: the prompt's, or the one just chosen
  size_t read = 0;                    // of them
  bool in_prompt = false;
  size_t marks = 0;                   // of the request's that were passed
  bool last = false;                  // ends once `pending` is read
  bool chooses = false;               // its next token is to be drawn
  std::optional<int32_t> drawn = {};  // that token
  std::exception_ptr error = {};      // or why there is none
  bool ended = false;
  Generation generation = {};

  std::span<const int32_t> unread() const { return std::span(pending).subspan(read); }
  // Up to where one pass may read: the next mark.
  int64_t readable() const {
    const auto& all = job->request.marks;
    if (in_prompt && marks < all.size()) return all[marks] - static_cast<int64_t>(read);
    return static_cast<int64_t>(unread().size());
  }
};

}  // namespace

const char* name_of(FinishReason r) {
  switch (r) {
    case FinishReason::kLength:
      return "length";
    case FinishReason::kStopId:
      return "stop";
    case FinishReason::kCallback:
      return "callback";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "?";
}

struct Engine::Impl {
  Impl(const Model& m, const EngineOptions& o)
      : model(m), options(check_options(o, m)), pool(m, options.max_sequences) {}

  static EngineOptions check_options(EngineOptions o, const Model& m) {
    if (o.vocab == 0) o.vocab = m.vocab_size();
    if (o.vocab < 1 || o.vocab > m.vocab_size()) {
      fail_usage(fmt::format("[engine] {} ids may be sampled, the model has {}", o.vocab, m.vocab_size()));
    }
    if (o.max_sequences < 1 || o.max_batch_tokens < o.max_sequences) {
      fail_usage(
          fmt::format("[engine] {} sequences and {} tokens a pass: wants at least one sequence, and a token for each",
                      o.max_sequences, o.max_batch_tokens));
    }
    return o;
  }

  const Model& model;
  EngineOptions options;
  StatePool pool;
  std::map<int64_t, JobPtr> jobs;  // until taken
  std::deque<Waiting> waiting;
  std::vector<Running> running;  // oldest first
  int64_t next_job = 0;
  bool any_cancelled = false;  // Job::cancelled of some job
  PassTokens pass;             // the last one

  bool cancelled() const { return options.cancel != nullptr && options.cancel->load(std::memory_order_relaxed); }

  // Runs `step`; what it throws ends the sequence's request, and no other.
  template <class F>
  void guarded(const JobPtr& job, F&& step) {
    try {
      step();
    } catch (...) {
      fail(job, std::current_exception());
    }
  }

  void fail(const JobPtr& job, std::exception_ptr error) {
    job->result.error = std::move(error);
    job->open = 0;
    for (Running& r : running)
      if (r.job == job) r.ended = true;
    std::erase_if(waiting, [&](const Waiting& w) { return w.job == job; });
  }

  void end(Running& r, FinishReason reason, bool with_state = true) {
    r.ended = true;
    r.generation.reason = reason;
    if (r.job->request.keep_state && with_state) r.generation.state = std::make_shared<State>(r.sequence.state());
    r.job->result.generations[static_cast<size_t>(r.index)] = std::move(r.generation);
    --r.job->open;
  }

  // Gives slots to those that wait, in order.
  void admit() {
    while (!waiting.empty() && pool.free_slots() > 0) {
      const Waiting w = std::move(waiting.front());
      waiting.pop_front();
      guarded(w.job, [&] { admit(w); });
    }
  }

  void admit(const Waiting& w) {
    const Request& q = w.job->request;
    const int32_t adapter = q.adapter.value_or(model.default_adapter());
    Running r{w.job, w.index, w.from ? Sequence(pool, *w.from, adapter) : Sequence(pool, adapter)};
    if (w.index > 0) {
      r.sequence.rng().stream += static_cast<uint64_t>(w.index);
    } else {
      if (!q.start || q.new_rng) r.sequence.rng() = {q.sampler.seed, q.sampler.stream, 0};
      r.pending = q.prompt;
      r.in_prompt = true;
    }
    running.push_back(std::move(r));
    if (running.back().unread().empty()) after_reading(running.back());
  }

  // One forward pass over what the scheduler picks.
  void forward(int64_t prompt_tokens) {
    std::vector<Unread> unread;
    unread.reserve(running.size());
    for (const Running& r : running) unread.push_back({r.ended ? 0 : r.readable(), !r.in_prompt});
    const std::vector<int64_t> now = schedule(unread, options.max_batch_tokens, prompt_tokens);
    std::vector<int32_t> ids;
    std::vector<int64_t> rows;
    SeqSpans spans;
    for (size_t i = 0; i < running.size(); ++i) {
      if (now[i] == 0) continue;
      const auto part = running[i].unread().first(static_cast<size_t>(now[i]));
      ids.insert(ids.end(), part.begin(), part.end());
      spans.add(now[i], running[i].sequence.slot(), running[i].sequence.adapter());
      rows.push_back(static_cast<int64_t>(ids.size()) - 1);
      (running[i].in_prompt ? pass.prompt : pass.generated) += now[i];
    }
    if (ids.empty()) return;
    Tensor logits;
    try {
      logits = model.forward(ids, spans, pool.states(), rows);
    } catch (...) {  // nobody in this pass can be trusted any more
      for (size_t i = 0; i < running.size(); ++i)
        if (now[i] > 0) fail(running[i].job, std::current_exception());
      return;
    }
    std::vector<Tensor> mine(running.size());  // each one's row
    int64_t row = 0;
    for (size_t i = 0; i < running.size(); ++i)
      if (now[i] > 0) mine[i] = logits.narrow(0, row++, 1).reshape({model.padded_vocab_size()});
    // Those that write: nobody is told between their reading a token and the draw of the next one.
    side_by_side(std::ssize(running), [&](size_t i) {
      Running& r = running[i];
      if (now[i] == 0 || r.ended || r.in_prompt) return;
      try {
        r.sequence.advance(r.unread(), mine[i]);
        if (!r.last) r.drawn = draw_for(r);
      } catch (...) {
        r.error = std::current_exception();
      }
    });
    for (size_t i = 0; i < running.size(); ++i) {
      Running& r = running[i];
      if (now[i] > 0 && !r.ended) guarded(r.job, [&] { advance(r, now[i], mine[i]); });
    }
    choose_all();
  }

  void advance(Running& r, int64_t n, const Tensor& logits) {
    if (r.error) std::rethrow_exception(std::exchange(r.error, nullptr));
    if (r.in_prompt) {
      // Who is amid a prompt may have to wait for the next pass, and shall not hold the logits of all others meanwhile.
      const bool amid = static_cast<size_t>(n) < r.unread().size();
      r.sequence.advance(r.unread().first(static_cast<size_t>(n)), amid ? logits.clone() : logits);
    }
    r.read += static_cast<size_t>(n);
    if (r.in_prompt) {
      r.job->result.prompt_read += n;
      const Request& q = r.job->request;
      if (q.on_prefill) q.on_prefill(r.job->result.prompt_read, static_cast<int64_t>(q.prompt.size()));
      if (r.marks < q.marks.size() && q.marks[r.marks] == static_cast<int64_t>(r.read)) {
        ++r.marks;
        q.on_mark(std::make_shared<const State>(r.sequence.state()));
      }
    }
    if (r.unread().empty()) after_reading(r);
  }

  void after_reading(Running& r) {
    if (r.in_prompt) after_prompt(r);
    r.in_prompt = false;
    if (r.last || r.job->request.max_new_tokens == 0) return end(r, r.generation.reason);
    r.chooses = true;
  }

  // Work of sequences that depends on their own alone.
  template <class F>
  void side_by_side(int64_t n, F&& work) const {
    model.runtime().pool->parallel_for(n, [&](int64_t i) { work(static_cast<size_t>(i)); });
  }

  // The next tokens of all sequences that have read what they had: drawn side by side, for a draw goes over the whole
  // vocabulary; then handed out in order.
  void choose_all() {
    std::vector<Running*> those, undrawn;
    for (Running& r : running) {
      if (!std::exchange(r.chooses, false) || r.ended) continue;
      those.push_back(&r);
      if (!r.drawn) undrawn.push_back(&r);
    }
    side_by_side(std::ssize(undrawn), [&](size_t i) {
      try {
        undrawn[i]->drawn = draw_for(*undrawn[i]);
      } catch (...) {
        undrawn[i]->error = std::current_exception();
      }
    });
    for (Running* r : those) {
      const std::exception_ptr error = std::exchange(r->error, nullptr);
      const std::optional<int32_t> id = std::exchange(r->drawn, std::nullopt);
      if (error && !r->ended) fail(r->job, error);
      if (!r->ended) guarded(r->job, [&] { deliver(*r, *id); });
    }
  }

  int32_t draw_for(Running& r) const {
    const std::span<const float> logits(r.sequence.head().last_logits.f32(), static_cast<size_t>(options.vocab));
    return r.job->sampler.pick(logits, r.sequence.head().history, r.sequence.rng());
  }

  // The other sequences of the request begin where the first one stands now.
  void after_prompt(const Running& r) {
    const int64_t n = r.job->request.n;
    r.job->result.generations.resize(static_cast<size_t>(n));
    r.job->open = n;
    if (n == 1) return;
    const auto here = std::make_shared<const State>(r.sequence.state());
    for (int64_t i = n - 1; i >= 1; --i) waiting.push_front({r.job, i, here});
  }

  void deliver(Running& r, int32_t id) {
    const Request& q = r.job->request;
    Generation& g = r.generation;
    const Tensor& row = r.sequence.head().last_logits;
    const std::span<const float> logits(row.f32(), static_cast<size_t>(options.vocab));
    GeneratedToken token{r.index, static_cast<int64_t>(g.ids.size()), id, {}};
    if (std::ranges::find(q.stop_ids, token.id) != q.stop_ids.end()) {
      g.stop_id = token.id;
      return end(r, FinishReason::kStopId);
    }
    if (q.logprobs) g.logprobs.push_back(*(token.logprobs = logprobs(logits, token.id, *q.logprobs)));
    g.ids.push_back(token.id);
    r.pending = {token.id};
    r.read = 0;
    if (q.on_token && !q.on_token(token)) {
      g.reason = FinishReason::kCallback;
      if (q.leave_last_unread) return end(r, g.reason);
      r.last = true;
    } else {
      r.last = static_cast<int64_t>(g.ids.size()) == q.max_new_tokens;
    }
    if (r.last && !q.keep_state) end(r, g.reason);  // nobody needs the last token read
  }

  // Ends all sequences, or those of cancelled requests. `whole`: states have read what was delivered.
  template <class Which>
  void cancel(Which&& which, bool whole) {
    for (Running& r : running) {
      if (r.ended || !which(*r.job)) continue;
      guarded(r.job, [&] {
        if (r.in_prompt) {
          r.job->result.generations.resize(1);
        } else if (r.job->request.keep_state && whole) {
          r.sequence.read(r.unread());  // the token already delivered
        }
        end(r, r.last ? r.generation.reason : FinishReason::kCancelled, r.in_prompt || whole);
      });
    }
    std::erase_if(waiting, [&](const Waiting& w) {
      if (!which(*w.job)) return false;
      Generation g;
      g.reason = FinishReason::kCancelled;
      if (w.job->request.keep_state && w.from) g.state = state_of(w);
      auto& all = w.job->result.generations;
      all.resize(std::max(all.size(), static_cast<size_t>(w.index) + 1));
      all[static_cast<size_t>(w.index)] = std::move(g);
      --w.job->open;
      return true;
    });
    drop_ended();
  }

  void drop_ended() {
    std::erase_if(running, [](const Running& r) { return r.ended; });
  }

  // What a sequence that never got a slot would have begun with.
  static std::shared_ptr<const State> state_of(const Waiting& w) {
    auto s = std::make_shared<State>(*w.from);
    const Request& q = w.job->request;
    if (w.index == 0 && q.new_rng) s->head.rng = {q.sampler.seed, q.sampler.stream, 0};
    s->head.rng.stream += static_cast<uint64_t>(w.index);
    return s;
  }

  bool tick(int64_t prompt_tokens) {
    pass = {};
    if (cancelled()) {
      cancel([](const Job&) { return true; }, true);
    } else {
      if (std::exchange(any_cancelled, false)) cancel([](const Job& j) { return j.cancelled; }, false);
      admit();
      choose_all();
      forward(prompt_tokens);
      drop_ended();
    }
    return !running.empty() || !waiting.empty();
  }

  const JobPtr& job(int64_t request) const {
    const auto it = jobs.find(request);
    if (it == jobs.end()) fail_usage(fmt::format("[engine] there is no request {}", request));
    return it->second;
  }
};

Engine::Engine(const Model& model, EngineOptions options) : impl_(std::make_unique<Impl>(model, options)) {}
Engine::~Engine() = default;

int64_t Engine::submit(Request request) {
  check_request(impl_->model, request, impl_->options.vocab);
  Sampler sampler(request.sampler, impl_->options.vocab);
  const auto job = std::make_shared<Job>(Job{std::move(request), std::move(sampler), {}, 1, false});
  impl_->jobs[impl_->next_job] = job;
  impl_->waiting.push_back({job, 0, job->request.start});
  return impl_->next_job++;
}

bool Engine::tick(int64_t prompt_tokens) { return impl_->tick(prompt_tokens); }

std::optional<Result> Engine::take(int64_t request) {
  Job& job = *impl_->job(request);
  if (job.open > 0) return std::nullopt;
  Result result = std::move(job.result);
  impl_->jobs.erase(request);
  return result;
}

void Engine::cancel(int64_t request) {
  impl_->job(request)->cancelled = true;
  impl_->any_cancelled = true;
}

EngineLoad Engine::load() const {
  EngineLoad load;
  for (const Running& r : impl_->running) ++(r.in_prompt ? load.reading : load.writing);
  load.waiting = static_cast<int64_t>(impl_->waiting.size());
  return load;
}

const PassTokens& Engine::last_pass() const { return impl_->pass; }

Result Engine::run(Request request) {
  std::vector<Request> one;
  one.push_back(std::move(request));
  Result result = std::move(run(std::move(one))[0]);
  if (result.error) std::rethrow_exception(result.error);
  return result;
}

std::vector<Result> Engine::run(std::vector<Request> requests) {
  std::vector<Result> results(requests.size());
  std::vector<std::optional<int64_t>> numbers;
  for (size_t i = 0; i < requests.size(); ++i) {
    try {
      numbers.emplace_back(submit(std::move(requests[i])));
    } catch (...) {
      results[i].error = std::current_exception();
      numbers.emplace_back();
    }
  }
  while (tick()) {
  }
  for (size_t i = 0; i < numbers.size(); ++i)
    if (numbers[i]) results[i] = *take(*numbers[i]);
  return results;
}

const StatePool& Engine::pool() const { return impl_->pool; }

}  // namespace krait
