#include "krait/serve/service/service.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <thread>
#include <utility>

#include "krait/core/error.h"
#include "krait/serve/service/service_impl.h"

namespace krait::serve {
namespace {

[[noreturn]] void refuse(const std::string& param, const std::string& message, const char* code = "invalid_value") {
  throw ServeError(400, code, message, param);
}

void require_within(const std::string& param, int64_t value, int64_t least, int64_t most) {
  if (value < least || value > most) {
    refuse(param, fmt::format("[request] {} is {}, wants {} to {}", param, value, least, most));
  }
}

void check_options(const ServiceOptions& o, const Model& model) {
  const auto require = [](bool ok, const char* rule) {
    if (!ok) fail_usage(std::string("[service] ") + rule);
  };
  require(o.max_running >= 1 && o.max_queue >= 0 && o.max_queue_per_tenant >= 0, "wants slots and queues of >= 0");
  require(o.max_prompt_tokens >= 1 && o.max_tokens >= 1 && o.max_n >= 1, "wants limits of tokens and answers >= 1");
  require(o.max_wait.count() > 0, "wants a limit to waiting");
  require(o.prefill_tokens >= 1 && o.checkpoint_every >= 1, "wants tokens of a pass and between states >= 1");
  require(std::isfinite(o.max_stall) && o.max_stall >= 1, "a pass with a prompt takes at least as long as one without");
  require(o.vocab >= 0 && o.vocab <= model.vocab_size(), "the vocabulary is larger than the model's");
}

const ServeError kShuttingDown(503, "shutting_down", "[serve] the server is shutting down");

bool waits(Stage s) { return s < Stage::kRunning; }

}  // namespace

Service::Impl::Impl(const Model& m, const text::Tokenizer& t, const text::ChatTemplate* ct, PrefixCache& pc,
                    Conversations& cs, const Clock& ck, const ServiceOptions& o, ServiceProbe p)
    : model(m),
      tokenizer(t),
      control(t),
      chat(ct),
      cache(pc),
      conversations(cs),
      clock(ck),
      options(o),
      probe(std::move(p)),
      queue(o.max_wait),
      budget(o.max_stall, o.prefill_tokens) {
  check_options(o, m);
  for (const int32_t id : tokenizer.eos_ids())
    if (id < model.vocab_size()) stop_ids.push_back(id);
  housekept = clock.steady();
  make_engine();
  count_pass();
}

void Service::Impl::make_engine() {
  engine = nullptr;  // its slots are given back before others are made
  engine =
      std::make_unique<Engine>(model, EngineOptions{.max_sequences = options.max_running,
                                                    .max_batch_tokens = options.prefill_tokens + options.max_running,
                                                    .vocab = options.vocab,
                                                    .cancel = nullptr});
}

// ---- requests come and go

void Service::Impl::check(const GenerateRequest& q) const {
  const int64_t vocab = options.vocab > 0 ? options.vocab : model.vocab_size();
  const int inputs = (q.input.text ? 1 : 0) + (q.input.ids ? 1 : 0) + (q.input.messages.empty() ? 0 : 1);
  if (inputs != 1) refuse("prompt", "[request] wants one of text, tokens and messages");
  if (!q.input.messages.empty() && chat == nullptr) {
    refuse("messages", "[request] the model has no chat template: send a prompt instead", "no_chat_template");
  }
  require_within("adapter", q.adapter, -1, std::ssize(model.adapters()) - 1);
  require_within("max_tokens", q.max_tokens, 0, options.max_tokens);
  require_within("n", q.n, 1, options.max_n);
  require_within("priority", q.priority, RequestQueue::kLowest, RequestQueue::kHighest);
  require_within("max_wait", q.max_wait.count(), 0, std::chrono::milliseconds(std::chrono::hours(24)).count());
  if (q.logprobs) require_within("logprobs", *q.logprobs, 0, vocab);
  if (q.n > 1 && q.max_tokens == 0) refuse("n", "[request] several answers of no tokens");
  if (q.n > 1 && q.sampler.temperature == 0) refuse("n", "[request] several answers at temperature 0 would be equal");
  const Thread& t = q.thread;
  if (t.conversation && t.previous_response) {
    refuse("previous_response_id", "[request] goes on with a conversation or a response, not with both");
  }
  if (q.n > 1 && (t.conversation || t.previous_response || t.keep)) {
    refuse("n", "[request] a conversation goes on with one answer");
  }
  try {
    validate(q.sampler, vocab);
    const text::StopMatcher stops(q.stops);
  } catch (const Error&) {
    throw current_serve_error();
  }
  if (!q.input.ids) return;
  require_within("prompt", std::ssize(*q.input.ids), 0, options.max_prompt_tokens);
  for (const int32_t id : *q.input.ids) require_within("prompt", id, 0, model.vocab_size() - 1);
}

int64_t Service::Impl::submit(GenerateRequest request, std::shared_ptr<Listener> listener) {
  check(request);
  const auto job = std::make_shared<Job>();
  job->request = std::move(request);
  job->listener = std::move(listener);
  job->submitted = clock.steady();
  {
    const std::lock_guard lock(mutex);
    if (draining || stopping) throw ServeError(kShuttingDown).after(retry_after());
    const std::string& tenant = job->request.tenant;
    if (waiting >= options.max_queue + free_openings) {
      throw ServeError(429, "queue_full", fmt::format("[serve] {} requests are waiting", waiting)).after(retry_after());
    }
    const int64_t own_limit = options.max_queue_per_tenant;
    if (own_limit > 0 && waiting_of[tenant] >= own_limit) {
      throw ServeError(429, "too_many_requests", fmt::format("[serve] {} requests of this key are waiting", own_limit))
          .after(retry_after());
    }
    job->ticket = ++last_ticket;
    jobs.emplace(job->ticket, job);
    ++waiting;
    ++waiting_of[tenant];
  }
  (job->has_thread() ? store_work : work).post([this, job] { prepare(job); });
  return job->ticket;
}

void Service::Impl::cancel(int64_t ticket, const ServeError& why) {
  {
    const std::lock_guard lock(mutex);
    const auto it = jobs.find(ticket);
    if (it == jobs.end() || it->second->cancelled) return;
    it->second->cancelled = why;
    cancels.push_back(ticket);
  }
  wake();
}

void Service::Impl::wake() {
  {
    const std::lock_guard lock(mutex);
    woken = true;
  }
  changed.notify_all();
}

void Service::Impl::set_stage(Job& job, Stage stage) {
  if (waits(job.stage) && !waits(stage)) {
    --waiting;
    const auto own = waiting_of.find(job.request.tenant);
    if (--own->second == 0) waiting_of.erase(own);
  }
  job.stage = stage;
}

void Service::Impl::advance(Job& job, Stage stage) {
  if (job.cancelled) throw ServeError(*job.cancelled);
  set_stage(job, stage);
}

// The conversation is free again before the client hears of it.
void Service::Impl::fail(const JobPtr& job, ServeError error) {
  {
    const std::lock_guard lock(mutex);
    set_stage(*job, Stage::kEnded);
  }
  if (!job->hold && !job->forked) {
    tell(*job, [&](Listener& l) { l.failed(error); });
    return end(job);
  }
  store_work.post([this, job, error = std::move(error)] {
    job->hold = nullptr;
    try {
      if (job->forked) conversations.erase(job->request.tenant, *job->forked);
    } catch (...) {  // it expires
      fault(*job, std::current_exception());
    }
    tell(*job, [&](Listener& l) { l.failed(error); });
    end(job);
  });
}

void Service::Impl::end(const JobPtr& job) {
  {
    const std::lock_guard lock(mutex);
    set_stage(*job, Stage::kEnded);
    jobs.erase(job->ticket);
    woken = true;
  }
  changed.notify_all();
}

ServeError Service::Impl::fault(const Job& job, std::exception_ptr error) const {
  const std::string& id = job.request.id;
  try {
    std::rethrow_exception(error);
  } catch (const ServeError& e) {
    return e;
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kUsage) return current_serve_error();  // of the request
    if (probe.fault) probe.fault(id, e.what());
  } catch (const std::exception& e) {
    if (probe.fault) probe.fault(id, e.what());
  } catch (...) {
    if (probe.fault) probe.fault(id, "an unknown exception");
  }
  return {500, "internal_error", "[serve] the request failed inside the server; its log says why"};
}

int32_t Service::Impl::adapter_of(uint64_t fingerprint) const {
  for (int32_t a = -1; a < std::ssize(model.adapters()); ++a)
    if (model.fingerprint(a) == fingerprint) return a;
  fail_data(fmt::format("[state] {:016x} is the fingerprint of another model", fingerprint));
}

int Service::Impl::retry_after() const {
  const double queue_seconds =
      mean_seconds * static_cast<double>(waiting + 1) / static_cast<double>(options.max_running);
  return static_cast<int>(std::ceil(std::clamp(queue_seconds, 1.0, 60.0)));
}

// ---- driving

bool Service::Impl::idle() const { return jobs.empty(); }

bool Service::Impl::step() {
  const std::unique_lock driving(drive, std::try_to_lock);
  if (!driving) {  // somebody else does
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return true;
  }
  store_work.drain();
  work.drain();
  pass();
  const bool stored = store_work.drain(), worked = work.drain();
  const std::lock_guard lock(mutex);
  return stored || worked || !idle() || !readings.empty();
}

void Service::Impl::run() {
  const std::lock_guard driving(drive);
  {
    const std::lock_guard lock(mutex);
    looping = true;
  }
  std::jthread worker([this] { work.run(); }), store_worker([this] { store_work.run(); });
  for (bool more = false;;) {
    std::unique_lock lock(mutex);
    // Time limits and housekeeping want to be looked at now and then.
    const std::chrono::milliseconds pause(idle() ? 1000 : 20);
    if (!more) changed.wait_for(lock, pause, [&] { return woken || stopping; });
    if (stopping) break;
    woken = false;
    lock.unlock();
    more = pass();
  }
  work.close();
  store_work.close();
  worker.join();
  store_worker.join();
  abandon();
  const std::lock_guard lock(mutex);
  looping = false;
}

bool Service::Impl::drain(std::chrono::milliseconds patience) {
  const auto wait = [&](Time most) {
    std::unique_lock lock(mutex);
    if (looping) return changed.wait_for(lock, most, [&] { return idle() || stopping; }) && idle();
    lock.unlock();
    for (const Time until = clock.steady() + most; step() && clock.steady() < until;) {
    }
    lock.lock();
    return idle();
  };
  {
    const std::lock_guard lock(mutex);
    draining = true;
  }
  wake();
  const bool finished = wait(patience);
  std::vector<int64_t> left;
  {
    const std::lock_guard lock(mutex);
    for (const auto& [ticket, job] : jobs) left.push_back(ticket);
  }
  for (const int64_t ticket : left) cancel(ticket, kShuttingDown);
  if (!finished) wait(std::chrono::seconds(10));  // for a pass and the stores
  return finished;
}

void Service::Impl::abandon() {
  make_engine();  // no request runs any more
  running.clear();
  work.drain();
  store_work.drain();
  std::list<ReadingPtr> unread;
  std::map<int64_t, JobPtr> left;
  {
    const std::lock_guard lock(mutex);
    std::swap(unread, readings);
    left = jobs;
    queue.take_all();
    ready.clear();
  }
  for (const ReadingPtr& r : unread)
    for (const auto& then : r->then) then(nullptr, std::make_exception_ptr(kShuttingDown));
  for (const auto& [ticket, job] : left) fail(job, kShuttingDown);
  store_work.drain();
  count_pass();
}

std::shared_ptr<const State> Service::Impl::state(const std::string& tenant, const std::string& id,
                                                  std::optional<size_t> turns) {
  if (auto there = conversations.state(tenant, id, turns)) return there;
  auto reading = std::make_shared<Reading>();
  PrefixHit hit;
  const Conversation c = conversations.get(tenant, id);
  reading->adapter = adapter_of(c.model);
  if (c.imported == 0) {
    reading->ids = SharedIds(c.ids(turns));
    hit = cache.find(tenant, reading->ids.span(), root_of(reading->adapter));
  } else {  // only who holds it is told the states of an imported one
    const auto hold = conversations.hold(tenant, id);
    const ConversationEnd end = hold->end();
    if (turns && *turns < hold->conversation().turns.size()) {
      throw ServeError(404, "state_not_found", "[state] an imported conversation has its last state: rewind it first");
    }
    reading->ids = end.ids;
    reading->imported = end.imported;
    hit = hold->find({});
  }
  const int64_t all = reading->imported + std::ssize(reading->ids.span());
  if (all == 0) throw ServeError(404, "state_not_found", "[state] the conversation has read nothing yet");
  if (hit.state && hit.length == all) return hit.state;
  reading->tenant = tenant;
  reading->from = hit.state;
  reading->urgent = true;
  std::promise<std::shared_ptr<const State>> promise;
  auto future = promise.get_future();
  reading->then.emplace_back([&](std::shared_ptr<const State> s, std::exception_ptr error) {
    error ? promise.set_exception(std::move(error)) : promise.set_value(std::move(s));
  });
  bool drives = false;
  {
    const std::lock_guard lock(mutex);
    if (draining || stopping) throw ServeError(kShuttingDown);
    readings.push_back(reading);
    drives = !looping;
  }
  wake();
  while (drives && future.wait_for(std::chrono::seconds(0)) != std::future_status::ready) step();
  return future.get();
}

// ---- the facade

Service::Service(const Model& model, const text::Tokenizer& tokenizer, const text::ChatTemplate* chat,
                 PrefixCache& cache, Conversations& conversations, const Clock& clock, ServiceOptions options,
                 ServiceProbe probe)
    : impl_(std::make_unique<Impl>(model, tokenizer, chat, cache, conversations, clock, options, std::move(probe))) {}

Service::~Service() {
  stop();
  std::unique_lock lock(impl_->mutex);
  impl_->changed.wait(lock, [&] { return !impl_->looping; });
  lock.unlock();
  impl_->abandon();
}

int64_t Service::submit(GenerateRequest request, std::shared_ptr<Listener> listener) {
  return impl_->submit(std::move(request), std::move(listener));
}
void Service::cancel(int64_t ticket) {
  impl_->cancel(ticket, ServeError(499, "client_closed_request", "[serve] the client has gone"));
}
void Service::run() { impl_->run(); }
bool Service::step() { return impl_->step(); }
bool Service::drain(std::chrono::milliseconds patience) { return impl_->drain(patience); }
void Service::stop() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->changed.notify_all();
}
std::shared_ptr<const State> Service::state(const std::string& tenant, const std::string& conversation,
                                            std::optional<size_t> turns) {
  return impl_->state(tenant, conversation, turns);
}
void Service::check_foreign(const State& s) const {
  krait::check_foreign(impl_->model, s, impl_->adapter_of(s.model_fingerprint));
}
ServiceStats Service::stats() const {
  const std::lock_guard lock(impl_->mutex);
  ServiceStats s = impl_->stats;
  s.queued = impl_->waiting;
  return s;
}

}  // namespace krait::serve
