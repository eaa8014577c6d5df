// The inputs of the recurrent kernels from the tensors of their ops: the same for the forward and the backward call.
// Spans, outputs and states are left for the caller.
#pragma once
#include "krait/ops/recurrence.h"

namespace krait {

CausalConvParams conv_params(const Tensor& x, const Tensor& w, const Tensor& b, bool silu);
Mamba1ScanParams scan_params(const Mamba1Scan&);
SsdScanParams scan_params(const SsdScan&);
Mamba3ScanParams scan_params(const Mamba3Scan&);

}  // namespace krait
