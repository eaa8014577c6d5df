// A model's parameters in the types of a plan.
#pragma once
#include <functional>

#include "krait/core/thread_pool.h"
#include "krait/quant/activations.h"
#include "krait/quant/mix.h"

namespace krait::quant {

// How far a tensor's stored values are from the original's.
struct TensorError {
  double weights = 0;  // relative RMS: sqrt(Σ (ŵ − w)² / Σ w²)
  // Relative RMS of the matmul's output on the calibration text, columns taken as uncorrelated:
  // sqrt(Σ E[x_k²] (ŵ − w)² / Σ E[x_k²] w²). NaN without statistics.
  double outputs = 0;
};

struct QuantizedTensor {
  Tensor value;
  TensorError error;
};

// `original` [N, K] in `type`, its columns weighted by their mean squares if `stats` has them (else null). Throws
// kBadData if values leave the range of the type. `progress` is told the weights done by each step.
QuantizedTensor quantize_tensor(
    const Tensor& original, const PlannedTensor&, const ActivationStats* stats, ThreadPool&,
    const std::function<void(int64_t)>& progress = [](int64_t) {});

struct Quantized {
  ParamStore params;
  std::vector<TensorError> errors;  // one an entry of the plan; 0 for vectors
};
Quantized quantize(const ParamStore& original, const std::vector<PlannedTensor>&, const ActivationStats* stats,
                   ThreadPool&, const std::function<void(int64_t)>& progress);

}  // namespace krait::quant
