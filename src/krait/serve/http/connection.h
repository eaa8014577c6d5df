// Connection: one client's socket and the coroutine that reads requests from it and writes answers to it, one at a
// time. All of it runs on the thread of its loop. Has Boost inside: included by server.cc only.
#pragma once
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "krait/serve/http/answer.h"
#include "krait/serve/http/loop.h"
#include "krait/serve/http/request_parser.h"

namespace krait::serve {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

class Connection;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // `tls`: null for plain HTTP. `refused`: it gets a 503 and no more.
  Connection(std::shared_ptr<Core> core, Loop& loop, tcp::socket socket, std::shared_ptr<asio::ssl::context> tls,
             bool refused)
      : core_(std::move(core)),
        loop_(loop),
        socket_(std::move(socket)),
        timer_(socket_.get_executor()),
        refused_(refused) {
    if (tls) tls_ = std::make_unique<asio::ssl::stream<tcp::socket&>>(socket_, *tls);
  }

  // Any thread.
  void start() {
    asio::co_spawn(loop_.context, [self = shared_from_this()]() { return self->run(); }, asio::detached);
  }
  // Loop's thread only: makes the coroutine look again at what it waits for.
  void wake() { timer_.cancel(); }
  // The same, but for an event that can be sent at once: that needs no look.
  void wake_for_answer() {
    if (!send_at_once()) wake();
  }
  void abort() {
    aborted_ = true;
    close_socket();
    wake();
  }

 private:
  using Time = std::chrono::steady_clock::time_point;
  static Time now() { return std::chrono::steady_clock::now(); }
  static constexpr std::chrono::milliseconds kLinger{1000};
  static constexpr size_t kWatchBytes = 512, kHeaderBytes = 4096, kBodyBytes = 65536;  // of one read

  asio::awaitable<void> run();
  asio::awaitable<bool> handshake();
  asio::awaitable<bool> read_request();    // into parser_; false: no request will come
  asio::awaitable<bool> answer_request();  // false: no other one after it
  asio::awaitable<void> finish();
  // The only place where the coroutine waits: until wake(), or `deadline`.
  asio::awaitable<void> pause(Time deadline) {
    timer_.expires_at(deadline);
    error_code ignored;
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }

  bool parse();  // what is in in_; false: an error was reported
  bool admit();
  void call_handler();
  void report(int status, const std::string& message);

  void read_some(size_t most);
  void write_some();
  bool send_at_once();
  // Bytes that the peer has not confirmed yet.
  int kernel_queue() {
    int n = 0;
    return ioctl(socket_.native_handle(), SIOCOUTQ, &n) == 0 ? n : 0;
  }
  // A write waits until much of the kernel's buffer is free: a slow reader is at work if that shrinks.
  bool still_reads() {
    const int n = kernel_queue();
    if (n >= queued_) return false;
    queued_ = n;
    last_write_ = now();
    return true;
  }
  size_t unwritten() const { return out_.size() - written_; }
  void all_written() {
    written_ = 0;
    if (out_.capacity() > kHeaderBytes) std::string().swap(out_);
    out_.clear();
  }
  void set_options();
  // Ends in a reset, which no client takes for the end of an answer, and forgets what the kernel still has to send.
  void break_off() {
    broken_ = true;
    error_code ignored;
    socket_.set_option(asio::socket_base::linger(true, 0), ignored);
  }
  void close_socket() {
    error_code ignored;
    socket_.close(ignored);
  }

  const std::shared_ptr<Core> core_;
  Loop& loop_;
  tcp::socket socket_;
  std::unique_ptr<asio::ssl::stream<tcp::socket&>> tls_;
  bool tls_done_ = false, tls_good_ = false;  // the running handshake or farewell
  asio::steady_timer timer_;
  std::string remote_;
  const bool refused_;
  bool aborted_ = false;  // by the server's stop()

  std::string in_, chunk_;  // read and not parsed; where the running read writes to
  bool reading_ = false;
  bool read_ended_ = false;               // the client sends no more
  bool broken_ = false;                   // nor can anything be sent to it
  std::optional<MemoryShare> out_share_;  // of an answer that is written no more; outlives out_
  std::string out_;
  size_t written_ = 0;  // of out_
  bool writing_ = false;
  int queued_ = 0;           // bytes that the kernel held when the running write began
  bool farewell_ = false;    // the last bytes written say that the connection ends
  std::string last_words_;   // an error of ours, behind out_
  Time last_write_ = now();  // when bytes went out, or began to wait
  Time last_event_{};        // when the running answer last had something to send
  bool streaming_ = false;   // the coroutine waits for more of a stream, or for the time of a heartbeat

  std::unique_ptr<RequestParser> parser_;
  std::optional<MemoryShare> share_;  // of its body
  std::shared_ptr<Answer> answer_;
};

inline void Connection::read_some(size_t most) {
  if (reading_ || read_ended_ || aborted_) return;
  reading_ = true;
  if (chunk_.size() != most) chunk_ = std::string(most, '\0');
  auto on_read = [self = shared_from_this()](const error_code& ec, size_t n) {
    self->reading_ = false;
    self->in_.append(self->chunk_, 0, n);
    if (ec) self->read_ended_ = true;
    if (ec && ec != asio::error::eof && ec != asio::ssl::error::stream_truncated) self->broken_ = true;
    self->wake();
  };
  const auto buffer = asio::buffer(chunk_);
  if (tls_) {
    tls_->async_read_some(buffer, std::move(on_read));
  } else {
    socket_.async_read_some(buffer, std::move(on_read));
  }
}

inline void Connection::write_some() {
  if (writing_ || broken_ || aborted_ || unwritten() == 0) return;
  if (written_ == 0) last_write_ = now();
  writing_ = true;
  queued_ = kernel_queue();
  auto on_write = [self = shared_from_this()](const error_code& ec, size_t n) {
    self->writing_ = false;
    self->written_ += n;
    if (n > 0) self->last_write_ = now();
    if (ec) self->broken_ = true;
    if (self->unwritten() == 0) {
      self->all_written();
      self->wake();
    } else if (ec) {
      self->wake();
    } else {
      self->write_some();
    }
  };
  const auto buffer = asio::buffer(out_.data() + written_, unwritten());
  if (tls_) {
    tls_->async_write_some(buffer, std::move(on_write));
  } else {
    socket_.async_write_some(buffer, std::move(on_write));
  }
}

// A stream in full flow: what has come is written here and now, without a look by the coroutine, whose timer stays as
// it is: when it goes off, the coroutine sees that there were events meanwhile. False: nothing was done but to take
// what has come into out_.
inline bool Connection::send_at_once() {
  if (!streaming_ || tls_ || writing_ || broken_ || aborted_ || unwritten() > 0) return false;
  const Answer::Look look = answer_->look(out_, 0);
  if (!look.stream || look.broken || out_.empty()) return false;
  last_event_ = last_write_ = now();
  const ssize_t n = ::send(socket_.native_handle(), out_.data(), out_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  written_ = static_cast<size_t>(std::max<ssize_t>(0, n));
  if (unwritten() > 0) return false;  // no room, or an error: the coroutine's write finds out
  all_written();
  answer_->all_written();
  return true;
}

inline asio::awaitable<void> Connection::run() {
  try {
    loop_.connections.insert(this);
    if (core_->stopping) abort();
    set_options();
    const bool open = co_await handshake();
    if (open) {
      if (refused_) {
        report(503, "[http] too many connections");
      } else {
        // One co_await a statement: g++ 12 evaluates both sides of "co_await a && co_await b".
        for (bool more = true; more;) {
          more = co_await read_request();
          if (more) more = co_await answer_request();
        }
      }
      co_await finish();
    }
  } catch (...) {  // no memory: this connection ends
  }
  if (answer_) answer_->lose();
  close_socket();
  loop_.connections.erase(this);
  const std::lock_guard lock(core_->mutex);
  --core_->connections;
  core_->none_left.notify_all();
}

inline asio::awaitable<bool> Connection::handshake() {
  if (!tls_) co_return !aborted_;
  tls_->async_handshake(asio::ssl::stream_base::server, [self = shared_from_this()](const error_code& ec) {
    self->tls_done_ = true;
    self->tls_good_ = !ec;
    self->wake();
  });
  const Time deadline = now() + core_->options.header_timeout;
  while (!tls_done_ && !aborted_ && now() < deadline) co_await pause(deadline);
  if (!tls_done_ && !aborted_) ++core_->timed_out;
  if (tls_done_ && !tls_good_) ++core_->malformed;
  co_return tls_good_ && !aborted_;
}

inline void Connection::report(int status, const std::string& message) {
  Framing framing;
  if (!refused_) framing.id = core_->new_id();
  framing.extra = core_->options.headers;
  farewell_ = true;
  last_words_ = format_response(core_->report(status, message), framing);
}

inline bool Connection::parse() {
  in_.erase(0, parser_->put(in_));
  if (in_.empty() && in_.capacity() > kHeaderBytes) std::string().swap(in_);
  if (!parser_->problem()) return true;
  ++core_->malformed;
  report(parser_->problem()->status, parser_->problem()->message);
  return false;
}

// False: refused for what its headers say; nothing of the body is read.
inline bool Connection::admit() {
  if (!core_->options.admit) return true;
  try {
    core_->options.admit(parser_->head());
    return true;
  } catch (const ServeError& e) {
    Framing framing;
    framing.id = core_->new_id();
    framing.extra = core_->options.headers;
    farewell_ = true;
    last_words_ = format_response(error_response(e), framing);
    return false;
  }
}

inline asio::awaitable<bool> Connection::read_request() {
  const HttpOptions& options = core_->options;
  parser_ = std::make_unique<RequestParser>(options.max_header, options.max_body);
  share_.emplace(core_->memory);
  Time deadline = now() + options.idle_timeout;
  bool begun = false, in_body = false;
  for (;;) {
    if (aborted_) co_return false;
    if (!in_.empty()) {
      if (!begun) deadline = now() + options.header_timeout;
      begun = true;
      if (!parse()) co_return false;
      if (!share_->set(parser_->body_size())) {
        report(503, "[http] too many long bodies at a time");
        co_return false;
      }
      if (parser_->done()) co_return true;
      if (!in_body && parser_->header_done()) {
        in_body = true;
        if (!admit()) co_return false;
        deadline = now() + options.body_timeout;
        if (parser_->expects_continue() && in_.empty()) out_ += "HTTP/1.1 100 Continue\r\n\r\n";
        write_some();
      }
    }
    if (read_ended_ || broken_ || (!begun && core_->draining)) co_return false;
    if (now() >= deadline) {
      if (begun) {
        ++core_->timed_out;
        report(408, in_body ? "[http] the body took too long" : "[http] the headers took too long");
      }
      co_return false;
    }
    read_some(in_body ? kBodyBytes : kHeaderBytes);
    co_await pause(deadline);
  }
}

inline void Connection::call_handler() {
  Framing framing;
  framing.keep_alive = parser_->keep_alive();
  framing.minor_version = parser_->minor_version();
  HttpRequest request = parser_->take();
  parser_.reset();
  framing.head = request.method == "HEAD";
  constexpr const char* kIdChars = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._-";
  const std::string* id = request.header("x-request-id");
  if (id && !id->empty() && id->size() <= 128 && id->find_first_not_of(kIdChars) == id->npos) {
    request.id = *id;
  } else {
    request.id = core_->new_id();
  }
  framing.id = request.id;
  framing.extra = core_->options.headers;
  request.remote = remote_;
  Loop* loop = &loop_;
  answer_ = std::make_shared<Answer>(
      core_, std::move(framing),
      [core = core_, loop](std::function<void()> f) {
        if (!core->stopping) loop->post(std::move(f));  // else stop() could wait for ever on one who keeps posting
      },
      [core = core_, loop, weak = weak_from_this()] {
        if (auto self = weak.lock()) loop->post([self] { self->wake_for_answer(); });
      });
  // Outlives what is thrown.
  const auto exchange = std::make_shared<HttpExchange>(std::move(request), std::move(*share_), answer_);
  try {
    core_->handler(exchange);
  } catch (...) {
    answer_->fail(std::current_exception());
  }
}

inline asio::awaitable<bool> Connection::answer_request() {
  const HttpOptions& options = core_->options;
  call_handler();
  last_event_ = now();
  bool again = false;
  for (;;) {
    const size_t before = unwritten();
    const Answer::Look look = answer_->look(out_, before);
    if (unwritten() > before) last_event_ = now();
    if (look.broken) break_off();
    if (aborted_ || broken_) break;
    if (look.complete && unwritten() == 0) {
      again = look.keep_alive;
      farewell_ = !again;
      break;
    }
    if (read_ended_ && !look.complete) break;
    write_some();
    Time deadline = Time::max();
    if (unwritten() > 0) {
      deadline = last_write_ + options.write_timeout;
      if (now() >= deadline) {
        if (still_reads()) continue;
        ++core_->cut_off;
        break_off();
        break;
      }
    } else if (look.stream) {
      deadline = last_event_ + options.heartbeat;
      if (now() >= deadline) {
        answer_->heartbeat();
        last_event_ = now();
        continue;
      }
    }
    // The read that notices when the client goes; what it sends meanwhile is the beginning of its next request.
    if (in_.size() < options.max_header) read_some(kWatchBytes);
    streaming_ = look.stream && unwritten() == 0;
    co_await pause(deadline);
    streaming_ = false;
  }
  answer_->lose();
  out_share_.emplace(answer_->take_share());
  if (unwritten() == 0) out_share_.reset();
  answer_.reset();
  co_return again && !broken_;
}

// Writes what is left, says goodbye, and reads what still comes for a while: closing at once would reset the
// connection, and the client might lose the answer.
inline asio::awaitable<void> Connection::finish() {
  parser_.reset();  // what was read of a body that is refused
  share_.reset();
  for (;;) {
    if (out_.empty()) std::swap(out_, last_words_);
    if (aborted_ || broken_) co_return;
    if (unwritten() == 0) break;
    write_some();
    const Time deadline = last_write_ + core_->options.write_timeout;
    if (now() >= deadline && !still_reads()) co_return;
    co_await pause(last_write_ + core_->options.write_timeout);
  }
  if (!farewell_ && !tls_) co_return;
  tls_done_ = !tls_;
  if (tls_) {
    tls_->async_shutdown([self = shared_from_this()](const error_code&) {
      self->tls_done_ = true;
      self->wake();
    });
  } else {
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
  }
  const Time deadline = now() + kLinger;
  while (!aborted_ && now() < deadline && (tls_ ? !tls_done_ : !read_ended_)) {
    in_.clear();
    if (!tls_) read_some(kBodyBytes);
    co_await pause(deadline);
  }
}

inline void Connection::set_options() {
  error_code ignored;
  const tcp::endpoint peer = socket_.remote_endpoint(ignored);
  if (!ignored) remote_ = peer.address().to_string();
  socket_.set_option(tcp::no_delay(true), ignored);
  // A peer that vanished without a word is noticed after a minute, or when what was sent is not confirmed in time.
  const int fd = socket_.native_handle();
  const int on = 1, idle = 30, interval = 10, count = 3;
  const auto user = static_cast<unsigned>(std::max<int64_t>(1000, core_->options.write_timeout.count()));
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user, sizeof user);
}

}  // namespace krait::serve
