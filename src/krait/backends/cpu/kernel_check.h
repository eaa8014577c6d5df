// The kernels of a set against the scalar reference, on this machine: what `krait doctor` runs. Takes a moment.
#pragma once
#include <string>
#include <vector>

#include "krait/kernels/kernel_set.h"

namespace krait {

struct KernelCheck {
  std::string kernel;  // with its variant: "matmul bf16, kBF16x2"
  double error = 0;    // relative RMS of outputs and states against the scalar set; NaN if one of them is not finite
  double bound = 0;    // 0: the same bits
  bool ok() const { return error <= bound; }
};

// Every kernel, those of training too, in every variant (weight types, compute modes, pairings, gate orders) on small
// random inputs of odd and of published sizes, several sequences of different lengths in one batch.
std::vector<KernelCheck> check_kernels(const KernelSet&, ThreadPool&);

}  // namespace krait
