// Which packed tokens belong to which sequence, and which state slot each sequence reads and writes.
// The only batch form inside Krait: [T] tokens of all sequences one after the other, no padding.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace krait {

struct SeqSpans {
  std::vector<int64_t> offset{0};  // [n_seqs + 1]; sequence s owns tokens offset[s] .. offset[s+1]-1 (may be none)
  std::vector<int32_t> slot;       // [n_seqs]; distinct

  int64_t n_seqs() const { return static_cast<int64_t>(slot.size()); }
  int64_t n_tokens() const { return offset.back(); }
  int64_t length(int64_t s) const { return offset[static_cast<size_t>(s) + 1] - offset[static_cast<size_t>(s)]; }
  void add(int64_t n_tokens_of_sequence, int32_t state_slot) {
    offset.push_back(offset.back() + n_tokens_of_sequence);
    slot.push_back(state_slot);
  }
  static SeqSpans one(int64_t n_tokens_of_sequence, int32_t state_slot) {
    SeqSpans s;
    s.add(n_tokens_of_sequence, state_slot);
    return s;
  }
};

}  // namespace krait
