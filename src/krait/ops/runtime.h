// Runtime: where and how ops run. ForwardContext: one forward pass over one packed batch.
#pragma once
#include <string>
#include <vector>

#include "krait/autograd/tape.h"
#include "krait/core/seq_spans.h"
#include "krait/core/tensor.h"
#include "krait/kernels/kernel_set.h"

namespace krait {

class MatmulObserver;

struct Runtime {
  const KernelSet* kernels = nullptr;
  ThreadPool* pool = nullptr;
  Compute compute = Compute::kF32;
  MatmulObserver* observer = nullptr;  // of the models made with it; null: nobody looks
  // Records how a model's tensors follow from its parameters, while the model is made; null: not made for training.
  Tape* parameters = nullptr;
  int32_t default_adapter = -1;  // of a model: reads the sequences whose spans name none; −1: none

  Exec exec() const { return Exec{pool}; }
};

// Sees the input of every matmul, before it runs (calibration). Called on the thread that runs the forward pass.
class MatmulObserver {
 public:
  virtual ~MatmulObserver() = default;
  virtual void matmul(const std::string& weight_name, const Tensor& x) = 0;  // x [T, K]
};

// What the masks of dropout are a function of, beside the place: the same row of the same step gets the same mask, in
// whatever pieces a batch is computed.
struct Dropout {
  uint64_t seed = 0, step = 0;
  std::vector<int64_t> first_row;  // [n_seqs]: which row of the step a sequence's first token of this pass is
};

struct ForwardContext {
  const Runtime& runtime;
  const SeqSpans& spans;
  Tape* tape = nullptr;              // of a pass that is to go backward; null: inference
  const Dropout* dropout = nullptr;  // null: none

  bool training() const { return tape != nullptr; }
  const KernelSet& kernels() const { return *runtime.kernels; }
  Exec exec() const { return runtime.exec(); }
  int32_t adapter(int64_t s) const {  // of sequence s
    return spans.adapter.empty() ? runtime.default_adapter : spans.adapter[static_cast<size_t>(s)];
  }
  SpanView span_view() const { return {spans.offset.data(), spans.slot.data(), spans.n_seqs()}; }
};

}  // namespace krait
