// A progress bar on stderr, shown only on a terminal and only once a task has taken over a second.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace krait::cli {

class ProgressBar {
 public:
  ProgressBar(std::string what, int64_t total, std::string unit);
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

}  // namespace krait::cli
