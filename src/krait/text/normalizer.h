// Normalizers of a tokenizer: what happens to text before it is split.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace krait::text {

// Writes the new text to `out` and returns true; returns false if it is the old one.
using NormalizeStep = std::function<bool(std::string_view in, std::string& out)>;

class TextNormalizer {
 public:
  void add(NormalizeStep step) { steps_.push_back(std::move(step)); }
  bool empty() const { return steps_.empty(); }
  // The result is `text` itself or lies in `buffer`.
  std::string_view apply(std::string_view text, std::string& buffer) const {
    std::string next;
    for (const NormalizeStep& step : steps_) {
      next.clear();
      if (!step(text, next)) continue;
      buffer.swap(next);
      text = buffer;
    }
    return text;
  }

 private:
  std::vector<NormalizeStep> steps_;
};

}  // namespace krait::text
