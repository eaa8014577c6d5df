#include "krait/serve/api/call.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "krait/text/utf8.h"

namespace krait::serve {
namespace {

constexpr int kClientGone = 499;  // as nginx logs it; nobody reads it

}  // namespace

// What hears of one of the request's prompts.
class Call::Part : public Listener {
 public:
  Part(std::shared_ptr<Call> call, int run, size_t index) : call_(std::move(call)), run_(run), index_(index) {}

  void started(const Usage& usage) override { call_->hear({run_, Began{usage}}); }
  void delta(const Delta& d) override {
    Delta mine = d;
    mine.choice += static_cast<int64_t>(index_) * call_->asked_->requests[0].n;
    call_->note({run_, std::move(mine)});
  }
  void flush() override { call_->schedule(); }
  void done(const Answer& a) override { call_->hear({run_, Ended{index_, a}}); }
  void failed(const ServeError& e) override { call_->hear({run_, Failed{e}}); }

 private:
  std::shared_ptr<Call> call_;
  int run_;
  size_t index_;
};

Call::Call(ApiContext& context, std::shared_ptr<const Asked> asked, KeyInfo key, Keys::Pass pass,
           std::shared_ptr<StreamRecord> record)
    : context_(context),
      asked_(std::move(asked)),
      key_(std::move(key)),
      pass_(std::move(pass)),
      record_(std::move(record)),
      dialect_(make_dialect(*asked_, context)),
      answers_(asked_->requests.size()),
      open_parts_(asked_->requests.size()) {
  emit_ = [this](const std::string& event, std::string data) { add_event(event, std::move(data)); };
  if (!asked_->stream) emit_ = [](const std::string&, const std::string&) {};
}

void Call::start(const std::shared_ptr<Exchange>& exchange, size_t from) {
  first_ = exchange;
  readers_.push_back({exchange, from, false});
  if (asked_->stream && !record_) record_ = context_.streams.open(asked_->id, key_.tenant, asked_);
  if (asked_->stream) {
    const std::lock_guard lock(context_.streams.mutex);
    record_->call = weak_from_this();
  }
  watch(exchange);
  submit(0);
}

bool Call::attach(const std::shared_ptr<Exchange>& exchange, size_t from) {
  {
    const std::lock_guard lock(mutex_);
    if (over_) return false;
    readers_.push_back({exchange, from, false});
    if (begun_) send_events();
  }
  watch(exchange);
  return true;
}

// The end of a reader is told wherever it is noticed, under a lock of ours perhaps: hence the detour.
void Call::watch(const std::shared_ptr<Exchange>& exchange) {
  exchange->on_gone([weak = weak_from_this()] {
    const auto call = weak.lock();
    if (call) call->first_->post([call] { call->reader_gone(); });
  });
}

void Call::submit(int run) {
  for (size_t i = 0; i < asked_->requests.size(); ++i) {
    try {
      GenerateRequest request = asked_->requests[i];
      if (record_) request.thread.behind = record_->behind;  // of a stream that is run again
      const int64_t ticket =
          context_.service.submit(std::move(request), std::make_shared<Part>(shared_from_this(), run, i));
      bool late = false;
      {
        const std::lock_guard lock(inbox_mutex_);
        tickets_.push_back(ticket);
        late = cancelled_ || run != run_;
      }
      if (late) context_.service.cancel(ticket);
    } catch (...) {
      return hear({run, Failed{current_serve_error()}});
    }
  }
}

void Call::cancel_all() {
  std::vector<int64_t> tickets;
  {
    const std::lock_guard lock(inbox_mutex_);
    cancelled_ = true;
    tickets = tickets_;
  }
  for (const int64_t t : tickets) context_.service.cancel(t);
}

void Call::reader_gone() {
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(readers_, [](const Reader& r) { return r.exchange->gone(); });
    if (over_ || !readers_.empty()) return;
  }
  cancel_all();
}

void Call::note(Heard heard) {
  const std::lock_guard lock(inbox_mutex_);
  inbox_.push_back(std::move(heard));
}

void Call::hear(Heard heard) {
  note(std::move(heard));
  schedule();
}

void Call::schedule() {
  const std::lock_guard lock(inbox_mutex_);
  if (inbox_.empty() || std::exchange(scheduled_, true)) return;
  first_->post([self = shared_from_this()] { self->work(); });
}

void Call::work() {
  const std::lock_guard lock(mutex_);
  while (true) {
    Heard heard{0, Began{}};
    {
      const std::lock_guard inbox(inbox_mutex_);
      if (inbox_.empty()) {
        scheduled_ = false;
        break;
      }
      heard = std::move(inbox_.front());
      inbox_.pop_front();
    }
    if (!over_ && heard.run == run_) handle(std::move(heard));
  }
  if (asked_->stream && begun_) send_events();
  if (over_) end_streams();
}

void Call::handle(Heard heard) {
  if (auto* began = std::get_if<Began>(&heard.what)) {
    note_usage(began->usage);
    if (!std::exchange(begun_, true)) dialect_->begin(began->usage, emit_);
  } else if (auto* delta = std::get_if<Delta>(&heard.what)) {
    begun_ = true;
    written_ += 1;
    context_.metrics.token();
    choice_ = delta->choice;
    dialect_->delta(*delta, emit_);
    choice_ = -1;
  } else if (auto* ended = std::get_if<Ended>(&heard.what)) {
    on_ended(std::move(*ended));
  } else {
    on_failed(std::get<Failed>(heard.what).error);
  }
}

// A reader came back while the call was being cancelled because nobody read: from the beginning, then. Events that were
// sent before are not sent again.
void Call::restart() {
  int run = 0;
  {
    const std::lock_guard lock(inbox_mutex_);
    cancelled_ = false;
    tickets_.clear();
    run = ++run_;
  }
  dialect_ = make_dialect(*asked_, context_);
  answers_.assign(answers_.size(), std::nullopt);
  open_parts_ = answers_.size();
  emitted_.clear();
  begun_ = false;
  submit(run);
}

void Call::on_ended(Ended e) {
  answers_[e.part] = std::move(e.answer);
  if (--open_parts_ > 0) return;
  const Answer all = merged();
  if (asked_->stream) {
    begun_ = true;
    dialect_->done(all, emit_);
    if (dialect_->ends_with_done_mark()) add_event("", "[DONE]");
    const std::lock_guard lock(context_.streams.mutex);
    record_->finished = true;
  } else {
    for (Reader& r : readers_) r.exchange->respond({.body = dump(dialect_->whole(all))});
  }
  finish(200, &all);
}

void Call::on_failed(const ServeError& e) {
  if (e.status() == kClientGone && !readers_.empty()) return restart();
  const bool heard_of = std::ranges::any_of(readers_, &Reader::begun);  // by a reader, in an earlier run
  const bool stream_begun = asked_->stream && (begun_ || heard_of);
  begun_ = stream_begun;
  if (stream_begun && e.status() != kClientGone) {
    add_event("error", dump(error_json(e)));
    const std::lock_guard lock(context_.streams.mutex);
    record_->finished = true;
  }
  if (!stream_begun) {
    HttpResponse r{.status = e.status(), .body = dump(error_json(e))};
    if (e.retry_after()) r.headers.emplace_back("Retry-After", std::to_string(*e.retry_after()));
    for (Reader& reader : readers_) reader.exchange->respond(r);
    readers_.clear();
    if (record_) context_.streams.forget_untold(asked_->id);
  }
  finish(e.status(), nullptr);
  cancel_all();
}

void Call::finish(int status, const Answer* answer) {
  over_ = true;
  const char* path = path_of(asked_->endpoint);
  context_.metrics.request(path, status);
  if (answer != nullptr) context_.metrics.answer(path, asked_->model, *answer);
  const Usage u = answer != nullptr ? answer->usage : Usage{};
  std::string line = fmt::format("id={} request={} key={} path={} status={} prompt={} cached={} written={} miss={}",
                                 asked_->id, first_->request().id, key_.name.empty() ? "-" : key_.name, path, status,
                                 u.prompt_tokens, u.cached_tokens, written_, name_of(u.miss));
  if (answer != nullptr) {
    line += fmt::format(" queued_ms={:.1f} first_token_ms={:.1f} total_ms={:.1f}", answer->timing.queued * 1e3,
                        answer->timing.first_token * 1e3, answer->timing.total * 1e3);
  }
  if (asked_->adapted) line += " adapter=" + asked_->model;
  if (!asked_->user.empty()) line += " user=" + text::escape_controls(asked_->user);
  context_.log.info(line);
}

// What the conversation is when the answer begins: if it is run again, it must be the same.
void Call::note_usage(const Usage& usage) {
  if (!record_) return;
  const std::lock_guard lock(context_.streams.mutex);
  record_->behind = usage.behind;
}

// Numbered; what an earlier run of the same stream has said already is not said again. Choices are counted apart: how
// they take turns depends on what else runs.
void Call::add_event(const std::string& event, std::string data) {
  const std::lock_guard lock(context_.streams.mutex);
  if (emitted_[choice_]++ < record_->of_choice[choice_]) return;
  record_->of_choice[choice_] += 1;
  context_.streams.append(*record_, {asked_->id + ':' + std::to_string(record_->end()), event, std::move(data)});
}

void Call::send_events() {
  const std::lock_guard lock(context_.streams.mutex);
  record_->told = true;
  size_t all_have = record_->end();
  for (Reader& r : readers_) {
    if (!std::exchange(r.begun, true)) r.exchange->begin_stream({{"X-Krait-Stream", asked_->id}});
    for (r.next = std::max(r.next, record_->first); r.next < record_->end(); ++r.next) {
      if (!r.exchange->send(record_->events[r.next - record_->first])) break;
    }
    if (!r.exchange->gone()) all_have = std::min(all_have, r.next);
  }
  context_.streams.drop(*record_, all_have);
}

void Call::end_streams() {
  for (Reader& r : readers_) {
    if (r.begun) r.exchange->end_stream();
  }
  readers_.clear();
}

Answer Call::merged() const {
  Answer all = *answers_[0];
  for (size_t i = 1; i < answers_.size(); ++i) {
    const Answer& a = *answers_[i];
    all.choices.insert(all.choices.end(), a.choices.begin(), a.choices.end());
    all.usage.prompt_tokens += a.usage.prompt_tokens;
    all.usage.cached_tokens += a.usage.cached_tokens;
    all.usage.completion_tokens += a.usage.completion_tokens;
    if (all.usage.miss == MissReason::kNone) all.usage.miss = a.usage.miss;
    all.timing.queued = std::max(all.timing.queued, a.timing.queued);
    all.timing.first_token = std::min(all.timing.first_token, a.timing.first_token);
    all.timing.prefill = std::max(all.timing.prefill, a.timing.prefill);
    all.timing.decode = std::max(all.timing.decode, a.timing.decode);
    all.timing.total = std::max(all.timing.total, a.timing.total);
  }
  return all;
}

}  // namespace krait::serve
