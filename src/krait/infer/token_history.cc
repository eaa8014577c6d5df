#include "krait/infer/token_history.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <utility>

#include "krait/core/error.h"

namespace krait {

uint64_t TokenHistory::extend(uint64_t hash, std::span<const int32_t> ids) {
  for (const int32_t id : ids) {
    const auto u = static_cast<uint32_t>(id);
    const std::array<uint8_t, 4> le = {static_cast<uint8_t>(u), static_cast<uint8_t>(u >> 8),
                                       static_cast<uint8_t>(u >> 16), static_cast<uint8_t>(u >> 24)};
    hash = XXH3_64bits_withSeed(le.data(), le.size(), hash);
  }
  return hash;
}

void TokenHistory::push(int32_t id) {
  hash_ = extend(hash_, {&id, 1});
  ++position_;
  counts_.add(id);
  if (std::ssize(recent_) == 2 * kRecent) recent_.erase(recent_.begin(), recent_.begin() + kRecent);
  recent_.push_back(id);
}

void TokenHistory::push(std::span<const int32_t> ids) {
  for (const int32_t id : ids) push(id);
}

std::span<const int32_t> TokenHistory::recent() const {
  return std::span(recent_).last(static_cast<size_t>(std::min(std::ssize(recent_), kRecent)));
}

TokenCounts TokenHistory::counts_within(int64_t window) const {
  if (window < 0 || window >= position_) return counts_;
  TokenCounts c;
  const auto all = recent();
  for (const int32_t id : all.last(std::min(static_cast<size_t>(window), all.size()))) c.add(id);
  return c;
}

bool TokenHistory::operator==(const TokenHistory& o) const {
  return position_ == o.position_ && hash_ == o.hash_ && std::ranges::equal(recent(), o.recent()) &&
         counts_ == o.counts_;
}

TokenHistory TokenHistory::from_parts(uint64_t hash, std::vector<int32_t> recent, TokenCounts counts) {
  TokenHistory h;
  for (const auto& [id, n] : counts) {
    if (id < 0 || n < 1 || n > (int64_t{1} << 60) || h.position_ > (int64_t{1} << 60)) {
      fail_data(fmt::format("[state] token id {} is counted {} times", id, n));
    }
    h.position_ += n;
  }
  if (static_cast<int64_t>(recent.size()) != std::min(h.position_, kRecent)) {
    fail_data(fmt::format("[state] {} recent tokens at position {}", recent.size(), h.position_));
  }
  TokenCounts within;
  for (const int32_t id : recent) {
    within.add(id);
    if (within.of(id) > counts.of(id)) {
      fail_data(fmt::format("[state] recent token {} is missing from the counts", id));
    }
  }
  if (h.position_ == 0 && hash != 0) fail_data("[state] a history hash at position 0");
  h.hash_ = hash;
  h.recent_ = std::move(recent);
  h.counts_ = std::move(counts);
  return h;
}

}  // namespace krait
