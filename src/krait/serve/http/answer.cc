#include "krait/serve/http/answer.h"

#include <utility>

#include "krait/core/error.h"

namespace krait::serve {
namespace {

[[noreturn]] void fail_internal(const char* message) { throw Error(ErrorCode::kInternal, message); }

}  // namespace

HttpResponse ServerState::report(int status, const std::string& message) const {
  ServeError error(status, error_code_word(status), message);
  if (status == 503) error = std::move(error).after(1);
  HttpResponse out = error_response(error);
  if (options.error_body) out.body = options.error_body(status, message);
  return out;
}

ServeError ServerState::caught(std::exception_ptr why, const std::string& request_id) const {
  std::string what = "an exception of unknown type";
  try {
    std::rethrow_exception(why);
  } catch (const ServeError& e) {
    return e;
  } catch (const std::exception& e) {
    what = e.what();
  } catch (...) {
  }
  try {
    std::rethrow_exception(why);
  } catch (...) {
    ServeError out = current_serve_error();
    if (out.status() >= 500 && options.on_failure) options.on_failure(request_id, what);
    return out;
  }
}

Answer::Answer(std::shared_ptr<ServerState> server, Framing framing, Post post, std::function<void()> wake)
    : server_(std::move(server)),
      post_(std::move(post)),
      wake_(std::move(wake)),
      framing_(std::move(framing)),
      share_(server_->memory) {}

void Answer::wake() {
  if (!wake_posted_.exchange(true)) wake_();
}

void Answer::begin(bool stream) {
  if (begun_) fail_internal("[http] a request is answered once, and this one has been");
  begun_ = true;
  stream_ = stream;
  if (server_->draining || (stream && !framing_.chunked())) framing_.keep_alive = false;
  if (stream && !gone_) ++server_->streams;
}

std::function<void()> Answer::complete() {
  complete_ = true;
  if (stream_ && !gone_) --server_->streams;
  return std::exchange(on_gone_, nullptr);
}

void Answer::respond(const HttpResponse& response) {
  std::function<void()> dropped;
  {
    const std::lock_guard lock(mutex_);
    begin(false);
    if (!gone_ && share_.set(response.body.size())) {
      pending_ += format_response(response, framing_);
    } else if (!gone_) {
      pending_ += format_response(server_->report(503, "[http] too many long answers wait to be read"), framing_);
    }
    dropped = complete();
  }
  wake();
}

void Answer::begin_stream(const Headers& headers) {
  {
    const std::lock_guard lock(mutex_);
    begin(true);
    if (!gone_) pending_ += format_stream_head(headers, framing_);
  }
  wake();
}

bool Answer::send(const SseEvent& event) {
  bool taken = true;
  {
    const std::lock_guard lock(mutex_);
    if (!stream_ || complete_) fail_internal("[http] an event outside of a stream");
    if (gone_ || broken_) return false;
    const bool waiting = !pending_.empty() || unwritten_ > 0;
    append_event(pending_, event, framing_);
    const size_t backlog = pending_.size() + unwritten_;
    if ((waiting && backlog > server_->options.max_backlog) || !share_.set(backlog)) {
      ++server_->cut_off;
      broken_ = true;
      taken = false;
      std::string().swap(pending_);
    }
  }
  wake();
  return taken;
}

void Answer::end_stream() {
  std::function<void()> dropped;
  {
    const std::lock_guard lock(mutex_);
    if (!stream_ || complete_) fail_internal("[http] the end of a stream that does not run");
    if (!gone_ && !broken_) append_stream_end(pending_, framing_);
    dropped = complete();
  }
  wake();
}

bool Answer::gone() {
  const std::lock_guard lock(mutex_);
  return gone_ || broken_;
}

void Answer::on_gone(std::function<void()> f) {
  {
    const std::lock_guard lock(mutex_);
    if (complete_) return;
    if (!gone_) return std::swap(on_gone_, f);
  }
  post(std::move(f));
}

void Answer::run(const std::function<void()>& f) {
  try {
    f();
  } catch (...) {
    fail(std::current_exception());
  }
}

void Answer::post(std::function<void()> f) {
  post_([self = shared_from_this(), f = std::move(f)] { self->run(f); });
}

void Answer::respond_if_unanswered(const HttpResponse& response) {
  std::function<void()> dropped;
  {
    const std::lock_guard lock(mutex_);
    if (complete_) return;
    if (begun_) {
      broken_ = true;
    } else {
      begin(false);
      if (!gone_) pending_ += format_response(response, framing_);
    }
    dropped = complete();
  }
  wake();
}

void Answer::fail(std::exception_ptr why) {
  std::string id;
  {
    const std::lock_guard lock(mutex_);
    id = framing_.id;
  }
  respond_if_unanswered(error_response(server_->caught(why, id)));
}

void Answer::abandon() {
  {
    const std::lock_guard lock(mutex_);
    if (complete_) return;
  }
  respond_if_unanswered(server_->report(500, "[serve] the request was given up inside the server"));
}

Answer::Look Answer::look(std::string& out, size_t unwritten) {
  wake_posted_ = false;
  const std::lock_guard lock(mutex_);
  unwritten_ = unwritten;
  if (out.empty() && !pending_.empty()) {
    std::swap(out, pending_);
    unwritten_ = out.size();
  }
  return {stream_ && !complete_, complete_ && pending_.empty(), broken_, framing_.keep_alive};
}

void Answer::all_written() {
  const std::lock_guard lock(mutex_);
  unwritten_ = 0;
}

void Answer::heartbeat() {
  const std::lock_guard lock(mutex_);
  if (stream_ && !complete_) append_heartbeat(pending_, framing_);
}

MemoryShare Answer::take_share() {
  const std::lock_guard lock(mutex_);
  return std::move(share_);
}

void Answer::lose() {
  std::function<void()> f;
  {
    const std::lock_guard lock(mutex_);
    if (gone_) return;
    if (stream_ && !complete_) --server_->streams;
    gone_ = true;
    std::string().swap(pending_);
    f = std::exchange(on_gone_, nullptr);
  }
  if (f) run(f);
}

}  // namespace krait::serve
