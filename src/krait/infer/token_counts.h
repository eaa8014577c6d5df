// TokenCounts: how often each token was read. Two flat arrays: every state carries one, and copies are what it is for.
#pragma once
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

namespace krait {

class TokenCounts {
 public:
  using Entry = std::pair<int32_t, int64_t>;  // id and number

  TokenCounts() = default;
  TokenCounts(std::initializer_list<Entry> entries) : TokenCounts(entries.begin(), entries.end()) {}
  template <class It>
  TokenCounts(It first, It last) {
    for (; first != last; ++first) add(first->first, first->second);
  }

  void add(int32_t id, int64_t n = 1);
  int64_t of(int32_t id) const;  // 0: never read
  size_t size() const { return entries_.size(); }
  std::vector<Entry>::const_iterator begin() const { return entries_.begin(); }  // in order of their first occurrence
  std::vector<Entry>::const_iterator end() const { return entries_.end(); }

  // Whatever the order.
  bool operator==(const TokenCounts& o) const;

 private:
  size_t place_of(int32_t id) const;  // in places_: of the id, or where it would go
  void grow();

  std::vector<Entry> entries_;
  std::vector<uint32_t> places_;  // open addressing: 1 + index of an entry, 0: free; a power of two, at most half full
};

}  // namespace krait
