#include "progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "krait/text/utf8.h"

namespace krait::cli {

using std::chrono::duration;
using std::chrono::steady_clock;

ProgressBar::ProgressBar(const std::string& what, int64_t total, std::string unit)
    : what_(text::escape_controls(what)),
      unit_(std::move(unit)),
      total_(std::max<int64_t>(total, 1)),
      start_(steady_clock::now()),
      drawn_(start_),
      terminal_(isatty(STDERR_FILENO) == 1) {}

ProgressBar::~ProgressBar() { finish(); }

void ProgressBar::advance(int64_t n) {
  done_ += n;
  const auto now = steady_clock::now();
  const bool due = duration<double>(now - drawn_).count() > 0.2 && duration<double>(now - start_).count() > 1.0;
  if (!terminal_ || !due) return;
  drawn_ = now;
  draw();
}

void ProgressBar::draw() {
  visible_ = true;
  const double seconds = duration<double>(steady_clock::now() - start_).count();
  const double rate = static_cast<double>(done_) / seconds;
  const double left = rate > 0 ? static_cast<double>(total_ - done_) / rate : 0;
  const auto filled = static_cast<int>(24 * std::min(done_, total_) / total_);
  std::string bar(static_cast<size_t>(filled), '#');
  bar.resize(24, '.');
  std::fprintf(stderr, "\r\033[K%s [%s] %3d%%  %.0f %s/s  %.0f s left", what_.c_str(), bar.c_str(),
               static_cast<int>(100 * std::min(done_, total_) / total_), rate, unit_.c_str(), left);
  std::fflush(stderr);
}

void ProgressBar::finish() {
  if (!visible_) return;
  visible_ = false;
  std::fputs("\r\033[K", stderr);
}

SlowNotice::SlowNotice(const std::string& what) {
  if (isatty(STDERR_FILENO) != 1) return;
  thread_ = std::jthread([this, what = text::escape_controls(what)](const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    int seconds = 1;
    for (;; ++seconds) {
      changed_.wait_for(lock, stop, std::chrono::seconds(1), [] { return false; });
      if (stop.stop_requested()) break;
      std::fprintf(stderr, "\r\033[K%s, %d s", what.c_str(), seconds);
    }
    if (seconds > 1) std::fputs("\r\033[K", stderr);
  });
}

SlowNotice::~SlowNotice() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

}  // namespace krait::cli
