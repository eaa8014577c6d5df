// The loop's part of the service: who gets a slot, one pass of the engine, who has ended. Never blocks.
#include <algorithm>
#include <utility>

#include "krait/core/error.h"
#include "krait/serve/service/prompt.h"
#include "krait/serve/service/service_impl.h"

namespace krait::serve {

bool Service::Impl::pass() {
  const Time now = clock.steady();
  apply_cancels();
  drop_late(now);
  keep_house(now);
  dispatch();
  start_ready();
  start_readings();
  const bool more = tick();
  for (const JobPtr& job : running) {
    if (std::exchange(job->unflushed, false)) tell(*job, [](Listener& l) { l.flush(); });
  }
  collect();
  count_pass();
  return more;
}

// ---- those that leave early

void Service::Impl::apply_cancels() {
  std::vector<JobPtr> out;
  {
    const std::lock_guard lock(mutex);
    for (const int64_t ticket : std::exchange(cancels, {})) {
      const auto it = jobs.find(ticket);
      if (it == jobs.end()) continue;
      const JobPtr& job = it->second;
      bool found = false;
      if (job->stage == Stage::kQueued) {
        found = queue.remove(*job);
      } else if (job->stage == Stage::kWaiting) {
        for (const ReadingPtr& r : readings) found |= std::erase(r->jobs, job) > 0;
      } else if (job->stage == Stage::kRunning) {
        engine->cancel(job->engine);
      }  // at other stages, who works on it looks before the next one
      if (!found) continue;
      set_stage(*job, Stage::kEnded);
      out.push_back(job);
    }
  }
  for (const JobPtr& job : out) fail(job, *job->cancelled);
}

void Service::Impl::drop_late(Time now) {
  std::vector<JobPtr> late;
  int seconds_to_wait = 0;
  {
    const std::lock_guard lock(mutex);
    late = queue.take_late(now);
    for (const JobPtr& job : late) set_stage(*job, Stage::kEnded);
    seconds_to_wait = retry_after();
  }
  for (const JobPtr& job : late) {
    fail(job, ServeError(503, "queue_timeout", "[serve] no slot became free in time").after(seconds_to_wait));
  }
}

void Service::Impl::keep_house(Time now) {
  constexpr std::chrono::seconds kEvery(10);
  if (now - housekept < kEvery) return;
  housekept = now;
  const auto guarded = [this](auto&& f) {
    try {
      f();
    } catch (const std::exception& e) {
      if (probe.fault) probe.fault("housekeeping", e.what());
    }
  };
  work.post([this, guarded] { guarded([this] { cache.expire(); }); });
  store_work.post([this, guarded] { guarded([this] { conversations.expire(); }); });
}

// ---- those that come

int64_t Service::Impl::openings() const {
  return engine->pool().free_slots() - engine->load().waiting - finding - std::ssize(ready);
}

void Service::Impl::dispatch() {
  const std::lock_guard lock(mutex);
  const auto before = std::ranges::count_if(readings, [](const ReadingPtr& r) { return r->urgent && !r->engine; });
  for (int64_t n = openings() - before; n > 0 && !queue.empty(); --n) {
    const JobPtr job = queue.pop();
    set_stage(*job, Stage::kFinding);
    ++finding;
    (job->hold ? store_work : work).post([this, job] { find(job); });
  }
}

void Service::Impl::start_ready() {
  std::vector<JobPtr> now;
  {
    const std::lock_guard lock(mutex);
    std::swap(now, ready);
  }
  for (const JobPtr& job : now) start(job);
}

void Service::Impl::start(const JobPtr& job) {
  job->started = clock.steady();
  try {
    const int64_t number = engine->submit(engine_request(job));
    const std::lock_guard lock(mutex);
    job->engine = number;
    set_stage(*job, Stage::kRunning);
    if (job->cancelled) engine->cancel(number);
  } catch (const Error& e) {
    const bool of_client = e.code() == ErrorCode::kUsage || e.code() == ErrorCode::kBadData;
    return fail(job, of_client ? current_serve_error() : fault(*job, std::current_exception()));
  } catch (...) {
    return fail(job, fault(*job, std::current_exception()));
  }
  running.push_back(job);
  job->usage.prompt_tokens = job->prompt_tokens();
  job->usage.cached_tokens = job->hit.length;
  job->usage.miss = job->hit.reason;
  if (probe.queued) probe.queued(seconds(job->started - job->submitted));
  if (probe.prompt) probe.prompt(job->usage);
  tell(*job, [&](Listener& l) { l.started(job->usage); });
}

Request Service::Impl::engine_request(const JobPtr& job) {
  const GenerateRequest& r = job->request;
  Request q;
  q.adapter = r.adapter;
  q.start = job->hit.state;
  q.prompt.assign(job->all.begin() + (job->hit.length - job->imported), job->all.end());
  q.max_new_tokens = r.max_tokens;
  q.sampler = r.sampler;
  q.new_rng = true;  // an answer depends on its own seed, not on who read the prompt
  if (!r.ignore_eos) q.stop_ids = stop_ids;
  q.n = r.n;
  q.logprobs = r.logprobs;
  q.keep_state = r.n == 1 && (options.prefix_cache || job->hold);
  q.leave_last_unread = true;
  for (int64_t i = 0; i < r.n; ++i) job->choices.push_back({text::TokenText(tokenizer, r.stops), {}});
  q.on_token = [this, job](const GeneratedToken& t) { return deliver(job, t); };
  if (q.prompt.empty()) job->prompt_end = job->hit.state;
  if (!options.prefix_cache && !job->hold) return q;
  const int64_t total = job->prompt_tokens(), have = job->hit.length;
  const bool keeps = options.prefix_cache && job->imported == 0;
  q.marks = keeps          ? places_to_keep(have, total, job->hit.known, job->cuts, options.checkpoint_every)
            : have < total ? std::vector{total}
                           : std::vector<int64_t>{};
  for (int64_t& m : q.marks) m -= have;
  q.on_mark = [this, job, keeps, total](std::shared_ptr<const State> state) {
    const bool at_end = state->position() == total;
    if (at_end) job->prompt_end = state;
    // The end of a conversation's turn is of use to nobody else: it is kept once the answer is there, so that the
    // states that it pushes out to the disk do not hold up the first token.
    if (keeps && !(at_end && job->hold)) keep_mark(job, std::move(state));
  };
  return q;
}

// ---- one pass

bool Service::Impl::tick() {
  const Time begin = clock.steady();
  const EngineLoad load = engine->load();
  bool more = false;
  try {
    more = engine->tick(budget.next(load));
  } catch (...) {  // the engine itself failed: a new one takes over, without what ran
    const auto error = std::current_exception();
    std::vector<ReadingPtr> unread;
    {
      const std::lock_guard lock(mutex);
      for (const ReadingPtr& r : readings)
        if (r->engine) unread.push_back(r);
    }
    make_engine();
    for (const JobPtr& job : std::exchange(running, {})) fail(job, fault(*job, error));
    for (const ReadingPtr& r : unread) end_reading(r, nullptr, error);
    return false;
  }
  const PassTokens& pass = engine->last_pass();
  if (pass.prompt + pass.generated == 0) return more;
  const double took = seconds(clock.steady() - begin);
  budget.passed(pass, took);
  if (probe.pass) probe.pass(took, pass.prompt, load.reading + load.writing);
  return more;
}

void Service::Impl::collect() {
  std::vector<std::pair<JobPtr, Result>> ended;
  std::erase_if(running, [&](const JobPtr& job) {
    auto result = engine->take(job->engine);
    if (result) ended.emplace_back(job, std::move(*result));
    return result.has_value();
  });
  for (auto& [job, result] : ended) finish(job, std::move(result));
  std::vector<std::pair<ReadingPtr, Result>> read;
  {
    const std::lock_guard lock(mutex);
    for (const ReadingPtr& r : readings) {
      if (!r->engine) continue;
      if (auto result = engine->take(*r->engine)) read.emplace_back(r, std::move(*result));
    }
  }
  for (auto& [r, result] : read) finish(r, std::move(result));
}

void Service::Impl::count_pass() {
  const PassTokens& pass = engine->last_pass();
  const std::lock_guard lock(mutex);
  stats.running = std::ssize(running);
  stats.slots = engine->pool().n_slots();
  stats.free_slots = engine->pool().free_slots();
  free_openings = std::max<int64_t>(0, openings());
  if (pass.prompt + pass.generated == 0) return;
  stats.batch_tokens = pass.prompt + pass.generated;
  stats.passes += 1;
  stats.prefill_tokens += pass.prompt;
  stats.decode_tokens += pass.generated;
}

// ---- readings: the service's own requests, for slots that nobody else wants

void Service::Impl::start_readings() {
  std::vector<std::pair<ReadingPtr, std::exception_ptr>> failed;
  const auto begin = [&](const ReadingPtr& r) {
    try {
      r->engine = engine->submit(engine_request(*r));
    } catch (...) {
      failed.emplace_back(r, std::current_exception());
    }
  };
  {
    const std::lock_guard lock(mutex);
    if (draining) std::erase_if(readings, [](const ReadingPtr& r) { return !r->urgent && !r->engine; });
    int64_t n = openings();
    const bool wanted = !queue.empty() || finding > 0;
    bool idly = false;  // one of those for which nobody waits runs
    for (const ReadingPtr& r : readings) {
      if (r->urgent && !r->engine && n-- > 0) begin(r);
      idly |= r->engine && !r->urgent;
    }
    for (const ReadingPtr& r : readings) {
      if (!idly && !wanted && !r->urgent && n > 0) {
        begin(r);
        idly = true;
      } else if (r->engine && !r->urgent && !r->stopped && !queue.empty() && n <= 0) {
        r->stopped = true;
        engine->cancel(*r->engine);
      }
    }
  }
  for (const auto& [reading, error] : failed) end_reading(reading, nullptr, error);
}

Request Service::Impl::engine_request(const Reading& reading) {
  Request q;
  q.adapter = reading.adapter;
  q.start = reading.from;
  const int64_t have = reading.from ? reading.from->position() - reading.imported : 0;
  q.prompt.assign(reading.ids.begin() + have, reading.ids.end());
  q.keep_state = true;
  return q;
}

void Service::Impl::finish(const ReadingPtr& reading, Result result) {
  if (result.error) return end_reading(reading, nullptr, result.error);
  std::shared_ptr<const State> state = std::move(result.generations.front().state);
  const int64_t all = reading->imported + std::ssize(reading->ids.span());
  if (state && state->position() == all) return end_reading(reading, std::move(state), nullptr);
  const std::lock_guard lock(mutex);  // stopped on the way: it goes on from there, later
  reading->engine.reset();
  reading->stopped = false;
  if (state) reading->from = std::move(state);
}

void Service::Impl::end_reading(const ReadingPtr& reading, std::shared_ptr<const State> state,
                                std::exception_ptr error) {
  std::vector<JobPtr> jobs_waiting;
  {
    const std::lock_guard lock(mutex);
    readings.remove(reading);
    jobs_waiting = std::exchange(reading->jobs, {});
  }
  work.post([this, reading, state, error, jobs_waiting] {
    if (state && reading->imported == 0) keep(reading->tenant, reading->ids.span(), state);
    requeue(jobs_waiting);
    for (const auto& then : reading->then) then(state, error);
  });
}

}  // namespace krait::serve
