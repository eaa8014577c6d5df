// Vocab: token texts by id, and ids by text.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace krait::text {

inline uint64_t hash_bytes(std::string_view s) {
  uint64_t h = 0x9E3779B97F4A7C15u ^ s.size();
  size_t i = 0;
  const auto mix = [&h](uint64_t word) {
    h = (h ^ word) * 0xD6E8FEB86659FD93u;
    h ^= h >> 32;
  };
  for (; i + 8 <= s.size(); i += 8) {
    uint64_t word;
    __builtin_memcpy(&word, s.data() + i, 8);
    mix(word);
  }
  if (i < s.size()) {
    uint64_t word = 0;
    __builtin_memcpy(&word, s.data() + i, s.size() - i);
    mix(word);
  }
  return h;
}

class Vocab {
 public:
  static constexpr int32_t kMaxIds = 1 << 24;  // no published vocabulary has a tenth of it

  // False if the text is there already: nothing changes then. `id` is in [0, kMaxIds); ids may come in any order.
  bool add(std::string_view token, int32_t id);

  int64_t size() const { return static_cast<int64_t>(spans_.size()); }  // largest id + 1
  std::string_view token(int32_t id) const;                             // empty: no such id
  std::optional<int32_t> id(std::string_view token) const {
    const int32_t found = find(token);
    return found < 0 ? std::nullopt : std::optional(found);
  }
  int32_t find(std::string_view token) const;  // -1: not in the vocabulary

 private:
  struct Span {
    uint64_t offset = 0;
    uint32_t length = 0;
  };
  size_t slot_of(std::string_view token) const;  // where it is, or belongs
  void grow();

  std::string texts_;
  std::vector<Span> spans_;
  std::vector<int32_t> slots_;  // open addressing; -1: free
  size_t used_ = 0;
};

}  // namespace krait::text
