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
  // [n_seqs]: which of the model's adapters reads the sequence, −1: none. Empty: the model's default, for all of them.
  std::vector<int32_t> adapter;

  int64_t n_seqs() const { return static_cast<int64_t>(slot.size()); }
  int64_t n_tokens() const { return offset.back(); }
  int64_t length(int64_t s) const { return offset[static_cast<size_t>(s) + 1] - offset[static_cast<size_t>(s)]; }
  void add(int64_t n_tokens_of_sequence, int32_t state_slot) {
    offset.push_back(offset.back() + n_tokens_of_sequence);
    slot.push_back(state_slot);
  }
  void add(int64_t n_tokens_of_sequence, int32_t state_slot, int32_t read_with) {
    add(n_tokens_of_sequence, state_slot);
    adapter.push_back(read_with);
  }
  static SeqSpans one(int64_t n_tokens_of_sequence, int32_t state_slot) {
    SeqSpans s;
    s.add(n_tokens_of_sequence, state_slot);
    return s;
  }
  static SeqSpans one(int64_t n_tokens_of_sequence, int32_t state_slot, int32_t read_with) {
    SeqSpans s;
    s.add(n_tokens_of_sequence, state_slot, read_with);
    return s;
  }
};

}  // namespace krait
