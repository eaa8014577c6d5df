#include "krait/text/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "krait/core/error.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

// Length of the longest end of `text` that begins, without completing, `stop`.
size_t begun(std::string_view text, std::string_view stop) {
  size_t n = std::min(text.size(), stop.size() - 1);
  while (n > 0 && text.substr(text.size() - n) != stop.substr(0, n)) --n;
  return n;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& s : stops_) {
    if (s.empty()) fail_usage("[stop] a stop string is empty");
    if (!is_valid_utf8(s)) fail_usage("[stop] a stop string is not UTF-8, so it can never be found: '" + s + "'");
  }
  // Of two that end together, the longer one is looked for first.
  std::ranges::stable_sort(stops_, std::ranges::greater{}, &std::string::size);
}

std::string StopMatcher::push(std::string_view text) {
  if (found_) return {};
  if (stops_.empty()) return std::string(text);
  size_t end = held_.size();
  held_.append(text);
  for (++end; end <= held_.size(); ++end) {
    const auto before = std::string_view(held_).substr(0, end);
    const auto s = std::ranges::find_if(stops_, [&](const std::string& stop) { return before.ends_with(stop); });
    if (s == stops_.end()) continue;
    found_ = static_cast<size_t>(s - stops_.begin());
    return held_.substr(0, end - s->size());
  }
  size_t keep = 0;
  for (const std::string& s : stops_) keep = std::max(keep, begun(held_, s));
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StopMatcher::finish() {
  if (found_) return {};
  return std::exchange(held_, {});
}

}  // namespace krait::text
