#include "terminal.h"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>

#include "krait/core/error.h"

namespace krait::cli {
namespace {

std::atomic<bool> g_interrupted{false};
std::atomic<int> g_signal{0}, g_count{0};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);
struct sigaction g_old_int, g_old_term, g_old_pipe;

void on_signal(int number) {
  g_signal = number;
  g_interrupted = true;
  if (++g_count < 3) return;
  signal(number, SIG_DFL);
  raise(number);
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

Signals::Signals() {
  clear();
  struct sigaction note{};
  note.sa_handler = on_signal;  // without SA_RESTART: a read of a line returns
  sigaction(SIGINT, &note, &g_old_int);
  sigaction(SIGTERM, &note, &g_old_term);
  struct sigaction ignore{};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, &g_old_pipe);
}

Signals::~Signals() {
  sigaction(SIGINT, &g_old_int, nullptr);
  sigaction(SIGTERM, &g_old_term, nullptr);
  sigaction(SIGPIPE, &g_old_pipe, nullptr);
}

const std::atomic<bool>& Signals::interrupted() { return g_interrupted; }
int Signals::received() { return g_signal; }
void Signals::clear() {
  g_interrupted = false;
  g_signal = 0;
  g_count = 0;
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
