// What becomes of the engine's tokens: pieces of text for the listener, then the answer.
#include <fmt/format.h>

#include <utility>

#include "krait/core/error.h"
#include "krait/serve/service/service_impl.h"

namespace krait::serve {

// Within the engine's pass; what it throws ends the request, and no other.
bool Service::Impl::deliver(const JobPtr& job, const GeneratedToken& token) {
  const Time now = clock.steady();
  Choice& choice = job->choices[static_cast<size_t>(token.sequence)];
  if (!job->first_token) {
    job->first_token = now;
    if (probe.first_token) probe.first_token(seconds(now - job->submitted));
  }
  if (choice.last_token && probe.between_tokens) probe.between_tokens(seconds(now - *choice.last_token));
  choice.last_token = now;
  Delta delta;
  delta.choice = token.sequence;
  delta.token = token.id;
  delta.text = choice.text.push(token.id);
  delta.token_text = tokenizer.token_bytes(token.id);
  delta.logprobs = token.logprobs;
  ++job->usage.completion_tokens;
  job->unflushed = true;
  job->listener->delta(delta);
  return choice.text.stop() == nullptr;
}

ServeError Service::Impl::of_engine(const Job& job, std::exception_ptr error) const {
  try {
    if (job.imported > 0) std::rethrow_exception(error);
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kBadData) {
      return {422, "state_unusable",
              fmt::format("[serve] this conversation goes on from a state that was sent in, and the model makes no "
                          "numbers of it ({}): it stays as it was; rewind or delete it",
                          e.what())};
    }
  } catch (...) {
  }
  return fault(job, error);
}

void Service::Impl::finish(const JobPtr& job, Result result) {
  // The state that a turn leaves is not looked at by those who draw from it.
  if (const auto& state = result.error ? nullptr : result.generations.front().state; state && job->imported > 0) {
    try {
      const Tensor& logits = state->head.last_logits;
      check_logits({logits.f32(), static_cast<size_t>(logits.numel())});
    } catch (...) {
      result.error = std::current_exception();
    }
  }
  if (result.error) return fail(job, of_engine(*job, result.error));
  const bool commits = job->hold != nullptr;
  const bool read = job->prompt_end && job->hit.length < job->prompt_tokens();
  if (commits && read && options.prefix_cache && job->imported == 0) keep_mark(job, job->prompt_end);
  std::optional<ServeError> cancelled;
  {
    const std::lock_guard lock(mutex);
    cancelled = job->cancelled;
    if (!cancelled) set_stage(*job, Stage::kCommitting);
    mean_seconds += 0.1 * (seconds(clock.steady() - job->submitted) - mean_seconds);
  }
  if (cancelled) return fail(job, std::move(*cancelled));
  Answer answer = answer_of(*job, result);
  const ChoiceEnd& choice = answer.choices.front();
  SharedIds ids = job->all;
  ids.append(choice.ids);
  // A state behind a stop string has read too much, one amid a stop string of several tokens as well.
  std::shared_ptr<const State> end_state = std::move(result.generations.front().state);
  if (end_state && end_state->position() != job->imported + std::ssize(ids.span())) end_state = nullptr;
  if (commits) {
    store_work.post([this, job, answer = std::move(answer), end_state = std::move(end_state)]() mutable {
      commit(job, std::move(answer), std::move(end_state));
    });
    return;
  }
  if (options.prefix_cache && job->request.n == 1) {
    work.post([this, job, text = choice.text, ids = std::move(ids), end_state = std::move(end_state)] {
      if (end_state) keep(job->request.tenant, ids.span(), end_state);
      if (!job->request.input.messages.empty()) read_as_history(*job, text, ids, end_state);
    });
  }
  tell(*job, [&](Listener& l) { l.done(answer); });
  end(job);
}

Answer Service::Impl::answer_of(Job& job, const Result& result) const {
  Answer answer;
  for (size_t i = 0; i < result.generations.size(); ++i) {
    const Generation& g = result.generations[i];
    text::TokenText& text = job.choices[i].text;
    ChoiceEnd& end = answer.choices.emplace_back();
    end.last_text = text.finish();
    end.text = text.text();
    end.ids = g.ids;
    end.finish_reason = "length";
    if (g.reason == FinishReason::kStopId) end.finish_reason = "stop";
    if (text.stop() == nullptr) continue;
    end.finish_reason = "stop";
    end.stop_string = *text.stop();
    end.ids.resize(text.tokens_before_stop());
  }
  const Time now = clock.steady();
  const Time first = job.first_token.value_or(now);
  answer.usage = job.usage;
  answer.timing = {seconds(job.started - job.submitted), seconds(first - job.started), seconds(now - first),
                   seconds(now - job.submitted), seconds(first - job.submitted)};
  answer.seed = job.request.sampler.seed;
  return answer;
}

}  // namespace krait::serve
