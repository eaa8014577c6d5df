#include "load_client.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

#include "krait/core/error.h"

namespace krait::cli {
namespace {

using Clock = std::chrono::steady_clock;

// One request on its own connection.
class Connection {
 public:
  Connection(double due, std::string bytes) : out_(std::move(bytes)) { result_.due = due; }
  ~Connection() { close(); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  bool ended() const { return ended_; }
  double due() const { return result_.due; }
  LoadResult take() { return std::move(result_); }

  // `epoll` tells when it has to work().
  void open(int epoll, const sockaddr_storage& address, socklen_t size, double now) {
    epoll_ = epoll;
    result_.sent = now;
    fd_ = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    if (fd_ >= 0) setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (fd_ < 0 || (connect(fd_, reinterpret_cast<const sockaddr*>(&address), size) != 0 && errno != EINPROGRESS)) {
      return end(now, fmt::format("connect: {}", std::strerror(errno)));
    }
    listen(EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT, now);
  }

  void work(uint32_t ready, double now) {
    if (!out_.empty() && (ready & EPOLLOUT) != 0) write(now);
    if (!ended_ && (ready & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read(now);
  }

 private:
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  void end(double now, std::string error = {}) {
    if (std::exchange(ended_, true)) return;
    result_.end = now;
    result_.error = std::move(error);
    close();
  }

  void listen(int operation, uint32_t events, double now) {
    epoll_event e{};
    e.events = events;
    e.data.ptr = this;
    if (epoll_ctl(epoll_, operation, fd_, &e) != 0) end(now, fmt::format("epoll: {}", std::strerror(errno)));
  }

  void write(double now) {
    const ssize_t n = send(fd_, out_.data(), out_.size(), MSG_NOSIGNAL);
    if (n > 0) out_.erase(0, static_cast<size_t>(n));
    if (n < 0 && errno != EAGAIN) return end(now, fmt::format("send: {}", std::strerror(errno)));
    if (out_.empty()) listen(EPOLL_CTL_MOD, EPOLLIN, now);
  }

  void read(double now) {
    char buffer[16384];
    while (true) {
      const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
      if (n > 0) {
        in_.append(buffer, static_cast<size_t>(n));
        if (static_cast<size_t>(n) == sizeof buffer) continue;
        break;  // epoll tells if there is more
      }
      if (n < 0 && errno == EAGAIN) break;
      lines(now);
      return end(now, done_ ? "" : result_.status >= 400 ? in_ : "the connection ended before the answer did");
    }
    lines(now);
    if (done_) end(now);
  }

  // The status line, then every line that begins with "data:". Chunk sizes stand on lines of their own.
  void lines(double now) {
    size_t from = 0;
    for (size_t at = in_.find('\n'); at != std::string::npos && result_.status < 400 && !ended_;
         at = in_.find('\n', from)) {
      const auto line = std::string_view(in_).substr(from, at - from);
      from = at + 1;
      if (result_.status == 0) {
        const size_t space = line.find(' ');
        if (space != std::string::npos)
          std::from_chars(line.data() + space + 1, line.data() + line.size(), result_.status);
      } else if (line.starts_with("data: ")) {
        event(line.substr(6), now);
      }
    }
    in_.erase(0, from);
  }

  void event(std::string_view data, double now) {
    if (data.starts_with("[DONE]")) {
      done_ = true;
      return;
    }
    if (is_plain_text(data)) return token(now);
    const auto j = nlohmann::json::parse(data, nullptr, false);
    if (j.is_discarded() || j.contains("error")) return end(now, std::string(data));
    if (const auto u = j.find("usage"); u != j.end() && u->is_object()) {
      result_.completion_tokens = u->value("completion_tokens", int64_t{0});
      result_.prompt_tokens = u->value("prompt_tokens", int64_t{0});
      result_.cached_tokens = (*u)["prompt_tokens_details"].value("cached_tokens", int64_t{0});
    }
    const auto& choices = j["choices"];
    if (!choices.empty() && !choices[0].value("text", "").empty()) token(now);
  }

  // An event with text and nothing else of interest, as nearly all are. The client shares the machine with what it
  // measures, and need not parse them. Keys within a text would have their quotes escaped.
  static bool is_plain_text(std::string_view data) {
    constexpr std::string_view kText = "\"text\":\"";
    const size_t at = data.find(kText);
    return at != std::string_view::npos && data.substr(at + kText.size(), 1) != "\"" && data.ends_with('}') &&
           data.find("\"usage\"") == std::string_view::npos && data.find("\"error\"") == std::string_view::npos;
  }

  void token(double now) {
    if (result_.first < 0) result_.first = now;
    result_.tokens.push_back(now);
  }

  LoadResult result_;
  std::string out_, in_;
  int fd_ = -1, epoll_ = -1;
  bool ended_ = false, done_ = false;
};

}  // namespace

Endpoint parse_url(const std::string& url) {
  constexpr std::string_view kScheme = "http://";
  Endpoint e;
  const size_t end = url.find('/', kScheme.size());
  if (!url.starts_with(kScheme) || (end != std::string::npos && end + 1 != url.size())) {
    fail_usage(fmt::format("[bench serve] '{}' is not http://HOST:PORT", url));
  }
  const std::string authority = url.substr(kScheme.size(), end - kScheme.size());
  const size_t colon = authority.rfind(':');
  const bool has_port = colon != std::string::npos && authority.find(']', colon) == std::string::npos;
  e.host = authority.substr(0, has_port ? colon : authority.size());
  if (e.host.starts_with('[') && e.host.ends_with(']')) e.host = e.host.substr(1, e.host.size() - 2);
  const char* last = authority.data() + authority.size();
  if (e.host.empty() || (has_port && (std::from_chars(authority.data() + colon + 1, last, e.port).ptr != last ||
                                      e.port < 1 || e.port > 65535))) {
    fail_usage(fmt::format("[bench serve] '{}' is not http://HOST:PORT", url));
  }
  return e;
}

struct LoadClient::Impl {
  Endpoint endpoint;
  std::string api_key;
  sockaddr_storage address{};
  socklen_t address_size = 0;
  Clock::time_point start = Clock::now();
  std::vector<std::unique_ptr<Connection>> waiting, open;  // waiting: latest due first
  int epoll = epoll_create1(EPOLL_CLOEXEC);

  ~Impl() {
    open.clear();
    close(epoll);
  }
};

LoadClient::LoadClient(const Endpoint& endpoint, std::string api_key) : impl_(std::make_unique<Impl>()) {
  impl_->endpoint = endpoint;
  impl_->api_key = std::move(api_key);
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  const int error = getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found);
  if (error != 0) {
    throw Error(ErrorCode::kFailed, fmt::format("[bench serve] {}: {}", endpoint.host, gai_strerror(error)));
  }
  std::memcpy(&impl_->address, found->ai_addr, found->ai_addrlen);
  impl_->address_size = found->ai_addrlen;
  freeaddrinfo(found);
}

LoadClient::~LoadClient() = default;

double LoadClient::now() const { return std::chrono::duration<double>(Clock::now() - impl_->start).count(); }

size_t LoadClient::running() const { return impl_->waiting.size() + impl_->open.size(); }

void LoadClient::submit(double due, LoadRequest request) {
  std::string bytes = fmt::format(
      "POST /v1/completions HTTP/1.1\r\nHost: {}:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n"
      "Connection: close\r\n",
      impl_->endpoint.host, impl_->endpoint.port, request.body.size());
  if (!impl_->api_key.empty()) bytes += fmt::format("Authorization: Bearer {}\r\n", impl_->api_key);
  bytes += "\r\n" + request.body;
  auto c = std::make_unique<Connection>(due, std::move(bytes));
  auto& w = impl_->waiting;
  w.insert(std::ranges::lower_bound(w, due, std::greater<>(), [](const auto& o) { return o->due(); }), std::move(c));
}

std::vector<LoadResult> LoadClient::poll(double until) {
  auto& waiting = impl_->waiting;
  auto& open = impl_->open;
  std::vector<LoadResult> out;
  std::array<epoll_event, 256> events{};
  do {
    bool any_ended = false;
    while (!waiting.empty() && waiting.back()->due() <= now()) {
      open.push_back(std::move(waiting.back()));
      waiting.pop_back();
      open.back()->open(impl_->epoll, impl_->address, impl_->address_size, now());
      any_ended |= open.back()->ended();
    }
    const double next = waiting.empty() ? until : std::min(until, waiting.back()->due());
    const double pause = any_ended ? 0 : std::max(0.0, next - now());
    const int n = epoll_wait(impl_->epoll, events.data(), static_cast<int>(events.size()),
                             static_cast<int>(std::min(pause, 60.0) * 1e3) + (pause > 0 ? 1 : 0));
    for (int i = 0; i < n; ++i) {
      auto* const c = static_cast<Connection*>(events[static_cast<size_t>(i)].data.ptr);
      c->work(events[static_cast<size_t>(i)].events, now());
      any_ended |= c->ended();
    }
    if (!any_ended) continue;
    for (const auto& c : open)
      if (c->ended()) out.push_back(c->take());
    std::erase_if(open, [](const auto& c) { return c->ended(); });
  } while (out.empty() && now() < until);
  return out;
}

int64_t LoadClient::abandon() {
  int64_t tokens = 0;
  for (const auto& c : impl_->open) tokens += std::ssize(c->take().tokens);
  impl_->open.clear();
  impl_->waiting.clear();
  return tokens;
}

}  // namespace krait::cli
