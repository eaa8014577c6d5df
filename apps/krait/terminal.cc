#include "terminal.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>
#include <utility>

#include "krait/core/error.h"

namespace krait::cli {
namespace {

std::atomic<bool> g_noting{false}, g_interrupted{false};
std::atomic<int> g_signal{0}, g_count{0};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);
bool g_error_terminal = false;
// Readable from a noted signal on until a LineReader has seen it: a signal that comes just before a wait ends the wait
// too, whichever thread it is delivered to.
int g_wake = -1;

// Async-signal-safe.
void say(std::string_view text) { [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, text.data(), text.size()); }

void on_signal(int number) {
  if (g_noting) {
    int none = 0;
    if (number == SIGTERM)
      g_signal = number;
    else
      g_signal.compare_exchange_strong(none, number);
    g_interrupted = true;
    const int error = errno;
    eventfd_write(g_wake, 1);
    errno = error;
    if (++g_count < 3) return;
  }
  if (g_error_terminal) say("\r\033[K");  // a progress bar
  say(number == SIGINT ? "krait: interrupted\n" : "krait: terminated\n");
  _exit(128 + number);
}

}  // namespace

Output::Output() : terminal_(isatty(STDOUT_FILENO) == 1) {}

void Output::write(std::string_view text) {
  while (!text.empty() && !closed_) {
    const ssize_t n = ::write(STDOUT_FILENO, text.data(), text.size());
    if (n >= 0) {
      text.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EPIPE) {
      closed_ = true;
    } else if (errno != EINTR) {
      throw Error(ErrorCode::kFailed, std::string("[stdout] cannot write: ") + std::strerror(errno));
    }
  }
}

bool Output::try_write(std::string_view text) noexcept {
  try {
    write(text);
  } catch (...) {
    failure_ = std::current_exception();
  }
  return !closed_ && !failure_;
}

void Output::rethrow() const {
  if (failure_) std::rethrow_exception(failure_);
}

void handle_signals() {
  g_error_terminal = isatty(STDERR_FILENO) == 1;
  struct sigaction end{};
  end.sa_handler = on_signal;
  sigaction(SIGINT, &end, nullptr);
  sigaction(SIGTERM, &end, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
}

Signals::Signals() {
  if (g_wake < 0) g_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (g_wake < 0) throw Error(ErrorCode::kFailed, std::string("[eventfd] ") + std::strerror(errno));
  take();
  g_noting = true;
}

Signals::~Signals() { g_noting = false; }

const std::atomic<bool>& Signals::interrupted() { return g_interrupted; }
int Signals::received() { return g_signal; }
int Signals::take() {
  g_count = 0;
  const int signal = g_signal.exchange(0);
  g_interrupted = false;
  if (g_signal != 0) g_interrupted = true;
  return signal;
}
void Signals::check() {
  if (g_interrupted) throw Interrupted{g_signal};
}

LineEnd LineReader::next(std::string& line) {
  for (;;) {
    eventfd_t signals = 0;
    eventfd_read(g_wake, &signals);  // before the look at the flag: one that comes after it ends the wait below
    if (Signals::interrupted()) {
      buffer_.clear();  // as the terminal did with its part of what was typed
      return LineEnd::kInterrupted;
    }
    if (const size_t end = buffer_.find('\n'); end != std::string::npos) {
      line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return LineEnd::kLine;
    }
    if (at_end_ && buffer_.empty()) {
      at_end_ = false;  // a terminal goes on after Ctrl-D
      return LineEnd::kEndOfFile;
    }
    if (at_end_) {
      line = std::exchange(buffer_, {});
      return LineEnd::kLine;
    }
    read_more();
  }
}

// Waits for input or a signal.
void LineReader::read_more() {
  pollfd wait[2] = {{STDIN_FILENO, POLLIN, 0}, {g_wake, POLLIN, 0}};
  if (poll(wait, 2, -1) < 0 || wait[0].revents == 0) return;
  char part[4096];
  const ssize_t n = ::read(STDIN_FILENO, part, sizeof part);
  if (n > 0) buffer_.append(part, static_cast<size_t>(n));
  if (n == 0) at_end_ = true;
  if (n < 0 && errno != EINTR && errno != EAGAIN) {
    throw Error(ErrorCode::kFailed, std::string("[stdin] cannot read: ") + std::strerror(errno));
  }
}

}  // namespace krait::cli
