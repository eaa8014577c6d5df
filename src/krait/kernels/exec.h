// What every kernel gets besides its parameters.
#pragma once
#include "krait/core/thread_pool.h"

namespace krait {

struct Exec {
  ThreadPool* pool;  // never null
};

// The packed batch as kernels see it (a view of core/seq_spans.h). Token t of sequence s is row offset[s] + t.
struct SpanView {
  const int64_t* offset;  // [n_seqs + 1]
  const int32_t* slot;    // [n_seqs] state slot of each sequence; distinct
  int64_t n_seqs;
  int64_t n_tokens() const { return offset[n_seqs]; }
};

}  // namespace krait
