// PieceCounts: how often each piece of a text occurs.
#pragma once
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "krait/text/vocab.h"

namespace krait::text {

class PieceCounts {
 public:
  void add(std::string_view piece, int64_t n = 1) {
    if (2 * entries_.size() >= slots_.size()) grow();
    const uint64_t hash = hash_bytes(piece);
    const size_t at = find(piece, hash);
    if (slots_[at] < 0) {
      slots_[at] = static_cast<int32_t>(entries_.size());
      entries_.push_back({hash, bytes_.size(), piece.size(), 0});
      bytes_ += piece;
    }
    entries_[static_cast<size_t>(slots_[at])].count += n;
  }

  int64_t size() const { return std::ssize(entries_); }
  std::string_view piece(int64_t i) const {
    const Entry& e = entries_[static_cast<size_t>(i)];
    return std::string_view(bytes_).substr(e.offset, e.length);
  }
  int64_t count(int64_t i) const { return entries_[static_cast<size_t>(i)].count; }

 private:
  struct Entry {
    uint64_t hash = 0;
    size_t offset = 0, length = 0;
    int64_t count = 0;
  };
  size_t find(std::string_view text, uint64_t hash) const {
    const size_t mask = slots_.size() - 1;
    for (size_t at = hash & mask;; at = (at + 1) & mask) {
      if (slots_[at] < 0) return at;
      const Entry& e = entries_[static_cast<size_t>(slots_[at])];
      if (e.hash == hash && std::string_view(bytes_).substr(e.offset, e.length) == text) return at;
    }
  }
  void grow() {
    slots_.assign(std::bit_ceil(4 * entries_.size() + 1024), -1);
    const size_t mask = slots_.size() - 1;
    for (size_t i = 0; i < entries_.size(); ++i) {
      size_t at = entries_[i].hash & mask;
      while (slots_[at] >= 0) at = (at + 1) & mask;
      slots_[at] = static_cast<int32_t>(i);
    }
  }

  std::string bytes_;
  std::vector<Entry> entries_;
  std::vector<int32_t> slots_;  // open addressing, at most half full; -1: free
};

}  // namespace krait::text
