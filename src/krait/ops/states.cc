#include "krait/ops/states.h"

#include <cstring>
#include <vector>

namespace krait {
namespace {

size_t bytes_of_slot(const Tensor& state) {
  return state.dim(0) == 0 ? 0 : static_cast<size_t>(state.nbytes() / state.dim(0));
}

}  // namespace

Tensor gather_states(const SeqSpans& spans, const Tensor& state) {
  std::vector<int64_t> dims(state.shape().dims().begin(), state.shape().dims().end());
  dims[0] = spans.n_seqs();
  Tensor r = Tensor::empty(Shape(std::span<const int64_t>(dims)), state.dtype());
  const size_t size = bytes_of_slot(state);
  for (size_t s = 0; s < spans.slot.size(); ++s) {
    std::memcpy(r.bytes() + s * size, state.bytes() + static_cast<size_t>(spans.slot[s]) * size, size);
  }
  return r;
}

void scatter_states(const SeqSpans& spans, const Tensor& states, Tensor& state) {
  const size_t size = bytes_of_slot(state);
  for (size_t s = 0; s < spans.slot.size(); ++s) {
    std::memcpy(state.bytes() + static_cast<size_t>(spans.slot[s]) * size, states.bytes() + s * size, size);
  }
}

}  // namespace krait
