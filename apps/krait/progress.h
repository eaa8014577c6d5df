// Progress on stderr, shown only on a terminal and only once a task has taken over a second.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

namespace krait::cli {

class ProgressBar {
 public:
  ProgressBar(const std::string& what, int64_t total, std::string unit);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void advance(int64_t n);
  void finish();  // wipes the line

 private:
  void draw();
  std::string what_, unit_;
  int64_t total_, done_ = 0;
  std::chrono::steady_clock::time_point start_, drawn_;
  bool terminal_, visible_ = false;
};

// For a task that cannot say how far it is: what goes on, and for how long, while this lives.
class SlowNotice {
 public:
  explicit SlowNotice(const std::string& what);
  ~SlowNotice();
  SlowNotice(const SlowNotice&) = delete;
  SlowNotice& operator=(const SlowNotice&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::jthread thread_;  // none where there is no terminal
};

}  // namespace krait::cli
