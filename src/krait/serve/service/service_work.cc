// The workers' part of the service: everything that may take long or block, before and after the engine.
#include <fmt/format.h>

#include <algorithm>

#include "krait/core/error.h"
#include "krait/serve/service/prompt.h"
#include "krait/serve/service/service_impl.h"

namespace krait::serve {
namespace {

std::string text_for_people(const text::Tokenizer& tokenizer, const Input& input) {
  if (input.text) return *input.text;
  if (input.ids) return tokenizer.decode(*input.ids, true);
  std::string all;
  for (const text::Message& m : input.messages) all += (all.empty() ? "" : "\n\n") + m.content;
  return all;
}

bool begins_with(std::span<const int32_t> ids, std::span<const int32_t> beginning) {
  return ids.size() >= beginning.size() && std::ranges::equal(ids.first(beginning.size()), beginning);
}

void go_on(Job& job, const ConversationEnd& end) {
  job.imported = end.imported;
  job.all = end.ids;
  job.before = std::ssize(end.ids.span());
  job.begin_mark = end.mark;
}

}  // namespace

// ---- before the engine

void Service::Impl::prepare(const JobPtr& job) {
  try {
    {
      const std::lock_guard lock(mutex);
      advance(*job, Stage::kPreparing);
    }
    if (job->has_thread()) open_conversation(*job);
    tokenize(*job);
    job->queued = clock.steady();
    const std::lock_guard lock(mutex);
    advance(*job, Stage::kQueued);
    queue.push(job);
  } catch (const Error& e) {
    const bool of_client = e.code() == ErrorCode::kUsage || e.code() == ErrorCode::kBadData;  // what it sent
    return fail(job, of_client ? current_serve_error() : fault(*job, std::current_exception()));
  } catch (...) {
    return fail(job, fault(*job, std::current_exception()));
  }
  wake();
}

void Service::Impl::open_conversation(Job& job) {
  const Thread& t = job.request.thread;
  const std::string& tenant = job.request.tenant;
  if (t.previous_response && t.discard) {  // only looked at
    const Conversations::Place place = conversations.find_response(tenant, *t.previous_response);
    const ConversationEnd end = conversations.end(tenant, place);
    check_model(job, end.model);
    if (end.imported > 0) {
      throw ServeError(400, "not_supported",
                       "[request] behind an imported state, nothing can be read without being kept", "store");
    }
    go_on(job, end);
    return;
  }
  const uint64_t model_now = model.fingerprint(job.request.adapter);
  if (t.previous_response) {
    hold_behind(job, *t.previous_response);
  } else {
    // Named after the response: as unique, and the same again in a run that is repeated.
    job.hold = conversations.hold(tenant, t.conversation.value_or("conv_" + job.request.id), model_now);
  }
  const ConversationEnd end = job.hold->end();
  check_model(job, end.model);
  job.usage.behind = end.last_response;
  if (t.behind && *t.behind != *job.usage.behind) {
    throw ServeError(409, "conversation_changed", "[serve] the conversation has gone on since");
  }
  go_on(job, end);
  if (t.instructs && job.prompt_tokens() > 0) {
    throw ServeError(400, "invalid_value",
                     "[request] instructions would stand behind what this conversation has read; a message of the "
                     "system can stand in the input",
                     "instructions");
  }
}

// What was read with one adapter means nothing to another one, nor to the model without.
void Service::Impl::check_model(const Job& job, uint64_t read_with) const {
  if (read_with == model.fingerprint(job.request.adapter)) return;
  const auto named = [&](int32_t a) {
    return a < 0 ? std::string("without an adapter")
                 : "with adapter '" + model.adapters()[static_cast<size_t>(a)]->name + "'";
  };
  throw ServeError(400, "wrong_model",
                   fmt::format("[serve] this conversation is read {}, and cannot go on {}",
                               named(adapter_of(read_with)), named(job.request.adapter)),
                   "model");
}

// Behind the last response of a conversation it goes on; behind an earlier one, a new conversation does.
void Service::Impl::hold_behind(Job& job, const std::string& response) {
  const std::string& tenant = job.request.tenant;
  const Conversations::Place place = conversations.find_response(tenant, response);
  const ConversationEnd end = conversations.end(tenant, place);
  check_model(job, end.model);
  if (end.is_last) {
    job.hold = conversations.hold(tenant, place.conversation);
    if (job.hold->conversation().turns.size() == place.turns) return;
    job.hold = nullptr;  // somebody was faster
  }
  const std::string name = "conv_" + job.request.id;
  conversations.fork(tenant, place.conversation, place.turns, name);
  job.forked = name;
  job.hold = conversations.hold(tenant, name);
}

void Service::Impl::tokenize(Job& job) const {
  const Input& input = job.request.input;
  const bool begins = job.prompt_tokens() == 0;
  PromptIds prompt;
  if (input.ids) {
    prompt.ids = *input.ids;
  } else if (input.text) {
    prompt.ids = tokenizer.encode(*input.text, {.add_special = begins, .parse_special = true});
  } else {
    control.refuse_in(input.messages);
    prompt = tokenize_chat(tokenizer,
                           begins ? render_chat(*chat, input.messages) : render_continuation(*chat, input.messages));
  }
  job.all.append(prompt.ids);
  for (const int64_t c : prompt.cuts) job.cuts.push_back(job.before + c);
  const char* param = input.messages.empty() ? "prompt" : "messages";
  if (job.prompt_tokens() == 0) {
    throw ServeError(400, "empty_prompt", "[request] the prompt has no tokens: there is nothing to go on from", param);
  }
  const int64_t own = std::ssize(prompt.ids);
  if (own > options.max_prompt_tokens) {
    throw ServeError(
        400, "context_length_exceeded",
        fmt::format("[request] the prompt has {} tokens, at most {} are read", own, options.max_prompt_tokens), param);
  }
}

void Service::Impl::find(const JobPtr& job) {
  std::optional<ServeError> failed;
  try {
    look_up(*job);
  } catch (...) {
    failed = fault(*job, std::current_exception());
  }
  {
    const std::lock_guard lock(mutex);
    --finding;
    if (!failed && job->cancelled) failed = job->cancelled;
    if (!failed && !wait_for_reading(job)) {
      set_stage(*job, Stage::kReady);
      ready.push_back(job);
    }
  }
  if (failed) return fail(job, std::move(*failed));
  wake();
}

void Service::Impl::look_up(Job& job) {
  const PrefixMark* from = job.begin_mark ? &*job.begin_mark : nullptr;
  if (job.hold) {
    job.hit = job.hold->find(job.prompt());
    job.end_mark = job.hold->end_after(job.prompt());
  } else if (options.prefix_cache) {
    job.hit = cache.find(job.request.tenant, job.all.span(), root_of(job.request.adapter), from);
  }
  if (!job.hit.state) job.hit.length = 0;
  if (job.hit.length < job.imported || job.hit.length > job.prompt_tokens()) {
    throw Error(ErrorCode::kInternal,
                fmt::format("[serve] a state of {} tokens for a prompt of {}, {} of them imported", job.hit.length,
                            job.prompt_tokens(), job.imported));
  }
}

// A request that begins with what is just being read waits for it: the tokens are not read twice.
bool Service::Impl::wait_for_reading(const JobPtr& job) {
  if (job->has_waited || job->imported > 0) return false;
  ReadingPtr best;
  for (const ReadingPtr& r : readings) {
    if (r->tenant != job->request.tenant || r->adapter != job->request.adapter || r->imported > 0 ||
        std::ssize(r->ids.span()) <= job->hit.length)
      continue;
    if (begins_with(job->all.span(), r->ids.span()) && (!best || r->ids.size() > best->ids.size())) best = r;
  }
  if (!best) return false;
  job->has_waited = true;
  set_stage(*job, Stage::kWaiting);
  best->jobs.push_back(job);
  best->urgent = true;
  return true;
}

// ---- after the engine

// A cache that cannot take a state is no reason to fail anything.
void Service::Impl::keep(const std::string& tenant, std::span<const int32_t> ids, std::shared_ptr<const State> state,
                         const PrefixMark* from, const PrefixMark* name) const {
  try {
    const PrefixRoot root = beginning_of(state->model_fingerprint);
    cache.put(tenant, ids, std::move(state), root, from, name);
  } catch (const std::exception& e) {
    if (probe.fault) probe.fault("prefix cache", e.what());
  }
}

void Service::Impl::keep_mark(const JobPtr& job, std::shared_ptr<const State> state) {
  work.post([this, job, state = std::move(state)] {
    const int64_t position = state->position();
    const PrefixMark* from = job->begin_mark ? &*job->begin_mark : nullptr;
    const PrefixMark* name = job->end_mark && position == job->end_mark->position ? &*job->end_mark : nullptr;
    keep(job->request.tenant, job->all.span().first(static_cast<size_t>(position)), state, from, name);
  });
}

void Service::Impl::commit(const JobPtr& job, Answer answer, std::shared_ptr<const State> end_state) {
  Turn turn;
  turn.response_id = job->request.id;
  turn.created = std::chrono::duration_cast<std::chrono::seconds>(clock.wall().time_since_epoch()).count();
  turn.prompt.assign(job->prompt().begin(), job->prompt().end());
  turn.answer = answer.choices.front().ids;
  turn.user = text_for_people(tokenizer, job->request.input);
  turn.assistant = answer.choices.front().text;
  auto reading = std::make_shared<Reading>();
  reading->tenant = job->request.tenant;
  reading->adapter = job->request.adapter;
  reading->ids = job->all;
  reading->ids.append(turn.answer);
  reading->from = job->prompt_end;
  const bool has_end = end_state != nullptr;
  try {
    answer.conversation = job->hold->conversation().id;
    job->hold->commit(std::move(turn), std::move(end_state));
  } catch (...) {
    return fail(job, fault(*job, std::current_exception()));
  }
  job->hold = nullptr;
  job->forked.reset();
  if (!has_end && job->imported == 0) add_reading(std::move(reading));
  tell(*job, [&](Listener& l) { l.done(answer); });
  end(job);
}

// The next request of a chat sends the answer as text. Where that has other tokens than those that were generated,
// they are read now, while the client thinks.
void Service::Impl::read_as_history(const Job& job, const std::string& answer, const SharedIds& ids,
                                    const std::shared_ptr<const State>& end_state) {
  try {
    auto reading = std::make_shared<Reading>();
    reading->tenant = job.request.tenant;
    reading->adapter = job.request.adapter;
    reading->ids = SharedIds(ids_with_answer(tokenizer, *chat, job.request.input.messages, answer));
    const auto all = reading->ids.span();
    const bool goes_on = all.size() > job.all.size() && begins_with(all, job.all.span());
    if (!goes_on || (end_state && std::ranges::equal(all, ids))) return;
    reading->from = end_state && begins_with(all, ids.span()) ? end_state : job.prompt_end;
    add_reading(std::move(reading));
  } catch (...) {
    fault(job, std::current_exception());
  }
}

void Service::Impl::add_reading(ReadingPtr reading) {
  constexpr size_t kMost = 64;
  {
    const std::lock_guard lock(mutex);
    if (draining || stopping || readings.size() >= kMost) return;
    for (const ReadingPtr& r : readings)
      if (r->tenant == reading->tenant && r->adapter == reading->adapter && std::ranges::equal(r->ids, reading->ids))
        return;
    readings.push_back(std::move(reading));
  }
  wake();
}

void Service::Impl::requeue(const std::vector<JobPtr>& waited) {
  {
    const std::lock_guard lock(mutex);
    for (const JobPtr& job : waited) {
      set_stage(*job, Stage::kQueued);
      queue.push(job);
    }
  }
  wake();
}

}  // namespace krait::serve
