// PieceCache: ids of the short pieces seen lately, since most words of a text are repeated.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "krait/text/vocab.h"

namespace krait::text {

class PieceCache {
 public:
  PieceCache() : slots_(kSlots) {}

  // Appends the ids and returns true if the piece is there.
  bool find(std::string_view piece, std::vector<int32_t>& out) const {
    if (piece.size() > kBytes) return false;
    const Slot& s = slots_[slot_of(piece)];
    if (s.bytes != piece.size() || std::memcmp(s.text, piece.data(), piece.size()) != 0) return false;
    out.insert(out.end(), s.ids, s.ids + s.count);
    return true;
  }
  // Replaces whatever has the same slot.
  void store(std::string_view piece, std::span<const int32_t> ids) {
    if (piece.empty() || piece.size() > kBytes || ids.size() > kIds) return;
    Slot& s = slots_[slot_of(piece)];
    s.bytes = static_cast<uint8_t>(piece.size());
    s.count = static_cast<uint8_t>(ids.size());
    std::ranges::copy(piece, s.text);
    std::ranges::copy(ids, s.ids);
  }

 private:
  static constexpr size_t kSlots = 1 << 15, kBytes = 30, kIds = 8;
  struct Slot {  // one cache line
    uint8_t bytes = 0, count = 0;
    char text[kBytes] = {};
    int32_t ids[kIds] = {};
  };
  static size_t slot_of(std::string_view piece) { return hash_bytes(piece) & (kSlots - 1); }
  std::vector<Slot> slots_;
};

// Lends a cache to each thread that encodes; there are never more than encode at once.
class PieceCachePool {
 public:
  std::unique_ptr<PieceCache> take() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        auto cache = std::move(free_.back());
        free_.pop_back();
        return cache;
      }
    }
    return std::make_unique<PieceCache>();
  }
  void give_back(std::unique_ptr<PieceCache> cache) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(cache));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<PieceCache>> free_;
};

}  // namespace krait::text
