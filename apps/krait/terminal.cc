#include "terminal.h"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>

#include "krait/core/error.h"

namespace krait::cli {
namespace {

std::atomic<bool> g_noting{false}, g_interrupted{false};
std::atomic<int> g_signal{0}, g_count{0};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);
bool g_error_terminal = false;

// Async-signal-safe.
void say(std::string_view text) { [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, text.data(), text.size()); }

void on_signal(int number) {
  if (g_noting) {
    g_signal = number;
    g_interrupted = true;
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
  end.sa_handler = on_signal;  // without SA_RESTART: a read of a line returns
  sigaction(SIGINT, &end, nullptr);
  sigaction(SIGTERM, &end, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
}

Signals::Signals() {
  clear();
  g_noting = true;
}

Signals::~Signals() { g_noting = false; }

const std::atomic<bool>& Signals::interrupted() { return g_interrupted; }
int Signals::received() { return g_signal; }
void Signals::clear() {
  g_interrupted = false;
  g_signal = 0;
  g_count = 0;
}
void Signals::check() {
  if (g_interrupted) throw Interrupted{g_signal};
}

LineEnd LineReader::next(std::string& line) {
  for (;;) {
    if (const size_t end = buffer_.find('\n'); end != std::string::npos) {
      line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return LineEnd::kLine;
    }
    char part[4096];
    const ssize_t n = ::read(STDIN_FILENO, part, sizeof part);
    if (n > 0) {
      buffer_.append(part, static_cast<size_t>(n));
    } else if (n < 0 && errno == EINTR) {
      buffer_.clear();  // the terminal has thrown away what was typed
      return LineEnd::kInterrupted;
    } else if (n < 0) {
      throw Error(ErrorCode::kFailed, std::string("[stdin] cannot read: ") + std::strerror(errno));
    } else {
      if (buffer_.empty()) return LineEnd::kEndOfFile;
      line = std::move(buffer_);
      buffer_.clear();
      return LineEnd::kLine;
    }
  }
}

}  // namespace krait::cli
