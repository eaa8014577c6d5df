#include "krait/infer/token_counts.h"

#include <algorithm>

namespace krait {

size_t TokenCounts::place_of(int32_t id) const {
  const size_t mask = places_.size() - 1;
  // Fibonacci hashing: neighbours are spread, and the high bits are the good ones.
  size_t at = (static_cast<uint32_t>(id) * uint64_t{0x9E3779B97F4A7C15} >> 32) & mask;
  while (places_[at] != 0 && entries_[places_[at] - 1].first != id) at = (at + 1) & mask;
  return at;
}

void TokenCounts::grow() {
  places_.assign(std::max<size_t>(16, 2 * places_.size()), 0);
  for (size_t i = 0; i < entries_.size(); ++i) places_[place_of(entries_[i].first)] = static_cast<uint32_t>(i + 1);
}

void TokenCounts::add(int32_t id, int64_t n) {
  if (2 * (entries_.size() + 1) > places_.size()) grow();
  uint32_t& place = places_[place_of(id)];
  if (place == 0) {
    entries_.emplace_back(id, 0);
    place = static_cast<uint32_t>(entries_.size());
  }
  entries_[place - 1].second += n;
}

int64_t TokenCounts::of(int32_t id) const {
  if (places_.empty()) return 0;
  const uint32_t place = places_[place_of(id)];
  return place == 0 ? 0 : entries_[place - 1].second;
}

bool TokenCounts::operator==(const TokenCounts& o) const {
  return size() == o.size() && std::ranges::all_of(entries_, [&](const Entry& e) { return o.of(e.first) == e.second; });
}

}  // namespace krait
