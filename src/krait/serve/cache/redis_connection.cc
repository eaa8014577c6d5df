#include "krait/serve/cache/redis_connection.h"

#include <fmt/format.h>
#include <signal.h>

#include <cerrno>
#include <charconv>

#include "krait/core/error.h"

namespace krait::serve {
namespace {

timeval to_timeval(std::chrono::milliseconds t) {
  return {.tv_sec = t.count() / 1000, .tv_usec = t.count() % 1000 * 1000};
}

[[noreturn]] void bad_url() {
  fail_usage("[redis] a URL is redis://[[user]:password@]host[:port][/db] or unix:[//[[user]:password@]]/path[?db=N]");
}

std::string percent_decoded(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '%') {
      out += s[i];
      continue;
    }
    unsigned byte = 0;
    if (i + 2 >= s.size()) bad_url();
    const auto r = std::from_chars(s.data() + i + 1, s.data() + i + 3, byte, 16);
    if (r.ptr != s.data() + i + 3) bad_url();
    out += static_cast<char>(byte);
    i += 2;
  }
  return out;
}

bool timed_out(const redisContext& c) { return c.err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK); }

int number(std::string_view s, int most) {
  int n = -1;
  const auto r = std::from_chars(s.data(), s.data() + s.size(), n);
  if (s.empty() || r.ec != std::errc{} || r.ptr != s.data() + s.size() || n < 0 || n > most) bad_url();
  return n;
}

// hiredis writes to a connection that the server may have closed: no signal shall come of it, whatever the process
// does with SIGPIPE.
class NoSigpipe {
 public:
  NoSigpipe() {
    ::sigemptyset(&pipe_);
    ::sigaddset(&pipe_, SIGPIPE);
    sigset_t pending;
    ::sigpending(&pending);
    was_pending_ = ::sigismember(&pending, SIGPIPE) == 1;
    ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoSigpipe() {
    const int error = errno;  // of hiredis, which callers look at
    const timespec no_wait{};
    if (!was_pending_) ::sigtimedwait(&pipe_, nullptr, &no_wait);
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    errno = error;
  }
  NoSigpipe(const NoSigpipe&) = delete;
  NoSigpipe& operator=(const NoSigpipe&) = delete;

 private:
  sigset_t pipe_{}, before_{};
  bool was_pending_ = false;
};

}  // namespace

RedisAddress parse_redis_url(const std::string& url) {
  constexpr int kMostDb = 1'000'000, kMostPort = 65535;
  RedisAddress a;
  std::string_view rest = url;
  const bool local = rest.starts_with("unix:");
  if (!local && !rest.starts_with("redis://")) bad_url();
  rest.remove_prefix(local ? 5 : 8);
  if (local && rest.starts_with("//")) rest.remove_prefix(2);
  if (const size_t at = rest.rfind('@'); at != std::string_view::npos) {
    const std::string_view who = rest.substr(0, at);
    const size_t colon = who.find(':');
    if (colon == std::string_view::npos) bad_url();
    a.user = percent_decoded(who.substr(0, colon));
    a.password = percent_decoded(who.substr(colon + 1));
    rest.remove_prefix(at + 1);
  }
  if (local) {
    if (const size_t q = rest.find("?db="); q != std::string_view::npos) {
      a.db = number(rest.substr(q + 4), kMostDb);
      rest = rest.substr(0, q);
    }
    if (!rest.starts_with('/')) bad_url();
    a.path = percent_decoded(rest);
    return a;
  }
  if (const size_t slash = rest.find('/'); slash != std::string_view::npos) {
    if (slash + 1 < rest.size()) a.db = number(rest.substr(slash + 1), kMostDb);
    rest = rest.substr(0, slash);
  }
  const size_t bracket = rest.find(']');  // of an IPv6 address
  const size_t colon = rest.find(':', bracket == std::string_view::npos ? 0 : bracket);
  if (colon != std::string_view::npos) {
    a.port = number(rest.substr(colon + 1), kMostPort);
    rest = rest.substr(0, colon);
  }
  if (rest.starts_with('[') && rest.ends_with(']')) rest = rest.substr(1, rest.size() - 2);
  if (rest.empty()) bad_url();
  a.host = rest;
  return a;
}

RedisPool::RedisPool(const RedisStoreOptions& options) : options_(options), address_(parse_redis_url(options.url)) {}

RedisPool::Connection RedisPool::connect() const {
  const timeval limit = to_timeval(options_.connect_timeout);
  Connection c(address_.path.empty() ? redisConnectWithTimeout(address_.host.c_str(), address_.port, limit)
                                     : redisConnectUnixWithTimeout(address_.path.c_str(), limit));
  if (c == nullptr) throw Error(ErrorCode::kFailed, "[redis] out of memory");
  if (c->err != 0) throw Error(ErrorCode::kFailed, fmt::format("[redis] cannot connect: {}", c->errstr));
  redisSetTimeout(c.get(), to_timeval(options_.timeout));
  const auto must = [&](const std::vector<std::string_view>& command) {
    const Reply r = try_run(c.get(), command);
    if (r == nullptr) throw Error(ErrorCode::kFailed, fmt::format("[redis] {}: {}", command[0], c->errstr));
    if (r->type == REDIS_REPLY_ERROR)
      throw Error(ErrorCode::kFailed, fmt::format("[redis] {}: {}", command[0], r->str));
  };
  if (!address_.user.empty()) {
    must({"AUTH", address_.user, address_.password});
  } else if (!address_.password.empty()) {
    must({"AUTH", address_.password});
  }
  if (address_.db != 0) must({"SELECT", std::to_string(address_.db)});
  return c;
}

Reply RedisPool::try_run(redisContext* c, const std::vector<std::string_view>& command) const {
  std::vector<const char*> parts;
  std::vector<size_t> sizes;
  for (const std::string_view s : command) {
    parts.push_back(s.data());
    sizes.push_back(s.size());
  }
  const NoSigpipe guard;
  return Reply(
      static_cast<redisReply*>(redisCommandArgv(c, static_cast<int>(command.size()), parts.data(), sizes.data())));
}

void RedisPool::down(const std::string& why) {
  const std::lock_guard lock(mutex_);
  down_until_ = std::chrono::steady_clock::now() + options_.retry;
  why_ = why;
  open_ -= std::ssize(idle_);
  idle_.clear();
}

RedisPool::Connection RedisPool::take() {
  std::unique_lock lock(mutex_);
  if (!free_.wait_for(lock, options_.timeout, [&] { return !idle_.empty() || open_ < options_.connections; })) {
    throw Error(ErrorCode::kFailed, "[redis] all connections are busy");
  }
  if (std::chrono::steady_clock::now() < down_until_) throw Error(ErrorCode::kFailed, why_);
  if (idle_.empty()) {
    ++open_;
    return nullptr;
  }
  Connection c = std::move(idle_.back());
  idle_.pop_back();
  return c;
}

void RedisPool::give(Connection connection) {
  {
    const std::lock_guard lock(mutex_);
    if (connection != nullptr) {
      idle_.push_back(std::move(connection));
    } else {
      --open_;
    }
  }
  free_.notify_one();
}

Reply RedisPool::run(const std::vector<std::string_view>& command) {
  Connection c = take();
  Reply reply;
  try {
    if (c != nullptr) reply = try_run(c.get(), command);
    if (reply == nullptr && c != nullptr && timed_out(*c)) {  // it hangs: a second try would take as long again
      throw Error(ErrorCode::kFailed, fmt::format("[redis] {}: no answer within the time", command[0]));
    }
    if (reply == nullptr) {  // a new connection, or one that the server has closed meanwhile
      c.reset();
      c = connect();
      reply = try_run(c.get(), command);
      if (reply == nullptr) throw Error(ErrorCode::kFailed, fmt::format("[redis] {}: {}", command[0], c->errstr));
    }
  } catch (const Error& e) {
    down(e.what());
    give(nullptr);
    throw;
  }
  give(std::move(c));
  if (reply->type == REDIS_REPLY_ERROR) {
    throw Error(ErrorCode::kFailed, fmt::format("[redis] {}: {}", command[0], reply->str));
  }
  return reply;
}

}  // namespace krait::serve
