// Collects what is wrong with a file so that one error can name everything.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "krait/core/error.h"

namespace krait::io {

// The message of an error without its "[op] ", to stand inside another.
inline std::string_view inner_message(const Error& e) {
  const std::string_view message = e.what();
  const size_t end = message.starts_with('[') ? message.find("] ") : std::string_view::npos;
  return end == std::string_view::npos ? message : message.substr(end + 2);
}

class Problems {
 public:
  void add(std::string problem) {
    if (list_.size() < kShown) list_.push_back(std::move(problem));
    ++count_;
  }
  bool empty() const { return count_ == 0; }

  // kBadData "[op] subject: problem" or, for several, one line each; nothing if there are none.
  void throw_if_any(const std::string& op, const std::string& subject) const {
    if (!empty()) raise(op, subject);
  }
  [[noreturn]] void raise(const std::string& op, const std::string& subject) const {
    std::string text = "[" + op + "] " + subject + ": ";
    if (count_ == 1) fail_data(text + list_.front());
    text += std::to_string(count_) + " problems";
    for (const std::string& p : list_) text += "\n  " + p;
    if (count_ > list_.size()) text += "\n  and " + std::to_string(count_ - list_.size()) + " more";
    fail_data(text);
  }

 private:
  static constexpr size_t kShown = 50;
  std::vector<std::string> list_;
  size_t count_ = 0;
};

}  // namespace krait::io
