// StopMatcher: finds stop strings in text that arrives in pieces. What is let through never holds any part of one.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace krait::text {

class StopMatcher {
 public:
  // Throws kUsage on a stop string that is empty or not UTF-8: it could never be found.
  explicit StopMatcher(std::vector<std::string> stops = {});

  // Appends text and returns what is certain to come before any stop string. Of the stop strings in the text, the one
  // that ends first counts, and of those ending together the longest: the result does not depend on the pieces.
  std::string push(std::string_view text);
  // No more text comes: what was held back because it could have become a stop string.
  std::string finish();
  // The stop string that was found, or null. From then on, push() and finish() return nothing.
  const std::string* found() const { return found_ ? &stops_[*found_] : nullptr; }

 private:
  std::vector<std::string> stops_;
  std::string held_;             // the longest end of the text that begins some stop string
  std::optional<size_t> found_;  // index into stops_
};

}  // namespace krait::text
