#include "krait/infer/token_history.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>

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
  ++counts_[id];
  recent_.push_back(id);
  if (static_cast<int64_t>(recent_.size()) > kRecent) recent_.pop_front();
}

void TokenHistory::push(std::span<const int32_t> ids) {
  for (const int32_t id : ids) push(id);
}

TokenHistory::Counts TokenHistory::counts_within(int64_t window) const {
  if (window < 0 || window >= position_) return counts_;
  Counts c;
  const auto n = std::min(window, static_cast<int64_t>(recent_.size()));
  for (auto it = recent_.end() - n; it != recent_.end(); ++it) ++c[*it];
  return c;
}

TokenHistory TokenHistory::from_parts(uint64_t hash, std::vector<int32_t> recent, Counts counts) {
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
  Counts within;
  for (const int32_t id : recent) {
    const auto all = counts.find(id);
    if (all == counts.end() || ++within[id] > all->second) {
      fail_data(fmt::format("[state] recent token {} is missing from the counts", id));
    }
  }
  if (h.position_ == 0 && hash != 0) fail_data("[state] a history hash at position 0");
  h.hash_ = hash;
  h.recent_.assign(recent.begin(), recent.end());
  h.counts_ = std::move(counts);
  return h;
}

}  // namespace krait
