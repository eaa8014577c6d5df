// Answer: what an Exchange (any thread) and its connection (on its IO thread) share while a request is answered.
#pragma once
#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "krait/serve/http/memory_share.h"
#include "krait/serve/http/response.h"
#include "krait/serve/http/server.h"

namespace krait::serve {

// Of one server: what its connections and their answers share.
struct ServerState {
  HttpOptions options;
  Handler handler;
  std::shared_ptr<SharedMemory> memory;
  std::atomic<bool> draining = false, stopping = false;
  std::atomic<int64_t> streams = 0, accepted = 0, refused = 0, malformed = 0, timed_out = 0, cut_off = 0;
  std::mutex mutex;
  std::condition_variable none_left;
  int64_t connections = 0;  // under `mutex`

  // An error that the server itself reports.
  HttpResponse report(int status, const std::string& message) const;
  // What was thrown by the handler, or by what it posted: as the client gets it; told to on_failure if it is a 500.
  ServeError caught(std::exception_ptr why, const std::string& request_id) const;
};

class Answer : public std::enable_shared_from_this<Answer> {
 public:
  // `post` runs something on the connection's thread, `wake` makes the connection look() soon; both from any thread,
  // and without effect once the server has stopped.
  using Post = std::function<void(std::function<void()>)>;
  Answer(std::shared_ptr<ServerState> server, Framing framing, Post post, std::function<void()> wake);

  // For the exchange.
  void respond(const HttpResponse& response);
  void begin_stream(const Headers& headers);
  bool send(const SseEvent& event);
  void end_stream();
  bool gone();
  void on_gone(std::function<void()> f);
  void post(std::function<void()> f);
  void fail(std::exception_ptr why);  // an error response, or the end of the connection where one is too late
  void abandon();                     // the exchange is destroyed

  // For the connection.
  struct Look {
    bool stream;      // has begun and is not complete
    bool complete;    // all bytes of the answer have been handed over
    bool broken;      // the connection must break off
    bool keep_alive;  // once complete
  };
  // Hands over what is to be written if `out` is empty. `unwritten`: bytes handed over before and not written yet.
  Look look(std::string& out, size_t unwritten);
  void all_written();  // of what was handed over
  void heartbeat();
  MemoryShare take_share();  // of what was handed over and is not written
  void lose();  // the connection has no more use for it: on_gone() is called unless the answer was complete

 private:
  void begin(bool stream);  // `mutex_` is held
  void respond_if_unanswered(const HttpResponse& response);
  std::function<void()> complete();  // the same; what it returns must be destroyed without the lock
  void wake();                       // without the lock
  void run(const std::function<void()>& f);

  const std::shared_ptr<ServerState> server_;
  const Post post_;
  const std::function<void()> wake_;
  std::atomic<bool> wake_posted_ = false;

  std::mutex mutex_;  // of all that follows
  Framing framing_;
  std::string pending_;
  MemoryShare share_;  // of what is not written
  size_t unwritten_ = 0;
  bool begun_ = false, stream_ = false, complete_ = false, broken_ = false, gone_ = false;
  std::function<void()> on_gone_;
};

class HttpExchange final : public Exchange {
 public:
  // `share`: of the request's body.
  HttpExchange(HttpRequest request, MemoryShare share, std::shared_ptr<Answer> answer)
      : share_(std::move(share)), request_(std::move(request)), answer_(std::move(answer)) {}
  ~HttpExchange() override { answer_->abandon(); }
  const HttpRequest& request() const override { return request_; }
  void respond(HttpResponse response) override { answer_->respond(response); }
  void begin_stream(Headers headers) override { answer_->begin_stream(headers); }
  bool send(const SseEvent& event) override { return answer_->send(event); }
  void end_stream() override { answer_->end_stream(); }
  bool gone() const override { return answer_->gone(); }
  void on_gone(std::function<void()> f) override { answer_->on_gone(std::move(f)); }
  void post(std::function<void()> f) override { answer_->post(std::move(f)); }

 private:
  const MemoryShare share_;  // given back when the request's memory is free
  const HttpRequest request_;
  const std::shared_ptr<Answer> answer_;
};

}  // namespace krait::serve
