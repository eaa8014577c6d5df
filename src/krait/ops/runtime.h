// Runtime: where and how ops run. ForwardContext: one forward pass over one packed batch.
#pragma once
#include <string>

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

  Exec exec() const { return Exec{pool}; }
};

// Sees the input of every matmul, before it runs (calibration). Called on the thread that runs the forward pass.
class MatmulObserver {
 public:
  virtual ~MatmulObserver() = default;
  virtual void matmul(const std::string& weight_name, const Tensor& x) = 0;  // x [T, K]
};

struct ForwardContext {
  const Runtime& runtime;
  const SeqSpans& spans;
  Tape* tape = nullptr;  // of a pass that is to go backward; null: inference

  bool training() const { return tape != nullptr; }
  const KernelSet& kernels() const { return *runtime.kernels; }
  Exec exec() const { return runtime.exec(); }
  SpanView span_view() const { return {spans.offset.data(), spans.slot.data(), spans.n_seqs()}; }
};

}  // namespace krait
