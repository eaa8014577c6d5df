// Runtime: where and how ops run. ForwardContext: one forward pass over one packed batch.
#pragma once
#include "krait/core/seq_spans.h"
#include "krait/kernels/kernel_set.h"

namespace krait {

struct Runtime {
  const KernelSet* kernels = nullptr;
  ThreadPool* pool = nullptr;
  Compute compute = Compute::kF32;

  Exec exec() const { return Exec{pool}; }
};

struct ForwardContext {
  const Runtime& runtime;
  const SeqSpans& spans;

  const KernelSet& kernels() const { return *runtime.kernels; }
  Exec exec() const { return runtime.exec(); }
  SpanView span_view() const { return {spans.offset.data(), spans.slot.data(), spans.n_seqs()}; }
};

}  // namespace krait
