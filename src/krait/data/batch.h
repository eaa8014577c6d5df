// Batch: sequences to learn from, packed one after the other without padding.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "krait/core/seq_spans.h"

namespace krait::data {

// Every sequence begins with a fresh state: nothing leaks from one to the next.
struct Batch {
  std::vector<int32_t> ids;      // [T] input
  std::vector<int32_t> targets;  // [T] what is to follow ids[t], in [0, vocabulary)
  std::vector<float> weights;    // [T] of each target in the loss; 0: not scored (its target is still an id)
  SeqSpans spans;                // which of the T positions belong to which sequence; slots 0, 1, …

  int64_t n_tokens() const { return static_cast<int64_t>(ids.size()); }
  int64_t n_seqs() const { return spans.n_seqs(); }

  // Appends a sequence; the three are of the same length.
  void add(std::span<const int32_t> sequence_ids, std::span<const int32_t> sequence_targets,
           std::span<const float> sequence_weights) {
    ids.insert(ids.end(), sequence_ids.begin(), sequence_ids.end());
    targets.insert(targets.end(), sequence_targets.begin(), sequence_targets.end());
    weights.insert(weights.end(), sequence_weights.begin(), sequence_weights.end());
    spans.add(static_cast<int64_t>(sequence_ids.size()), static_cast<int32_t>(spans.n_seqs()));
  }

  // Appends a sequence of which every id but the last is read and every id but the first is a target; two ids or more.
  void add_next_tokens(std::span<const int32_t> row) {
    add(row.first(row.size() - 1), row.subspan(1), std::vector<float>(row.size() - 1, 1.0f));
  }

  bool operator==(const Batch& other) const {
    return ids == other.ids && targets == other.targets && weights == other.weights &&
           spans.offset == other.spans.offset && spans.slot == other.spans.slot;
  }
};

}  // namespace krait::data
