// LowRank: what an adapter adds to a matmul or to an embedding (LoRA, Hu et al. 2021). A batch may be read with
// several adapters at once; the rows of a sequence depend on its own alone.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "krait/ops/weight.h"

namespace krait {

// y += (dropout(x) · Aᵀ) · Bᵀ
struct LowRank {
  Weight A;             // [r, K]
  Weight B;             // [N, r], times the scale of the adapter
  float dropout = 0;    // share of x's elements that a pass with ForwardContext::dropout leaves out; below 1
  uint64_t stream = 0;  // of its masks, another one for every matmul
};

// y += A[:, id] · Bᵀ
struct EmbeddingLowRank {
  Tensor A;  // [V, r]
  Weight B;  // [D, r], times the scale
};

// Consecutive sequences that are read with one adapter.
struct AdapterRun {
  int32_t adapter = -1;
  int64_t first_seq = 0, n_seqs = 0;
  int64_t first = 0, length = 0;  // their tokens
};
std::vector<AdapterRun> adapter_runs(const ForwardContext&);

// Adds to the rows of y = x · Wᵀ what the adapters of their sequences add. x [T, K], y [T, N], T all tokens of the
// spans.
void add_low_rank(ForwardContext&, const Tensor& x, const Weight&, Tensor& y);
// The same for y [T, D], the embeddings of ids; `by_adapter`: null where an adapter adds nothing.
void add_low_rank(ForwardContext&, std::span<const int32_t> ids,
                  std::span<const std::shared_ptr<const EmbeddingLowRank>> by_adapter, Tensor& y);

}  // namespace krait
