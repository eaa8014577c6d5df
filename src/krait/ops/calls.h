// Kernel calls that several ops make. Nothing is checked or recorded.
#pragma once
#include "krait/ops/weight.h"

namespace krait {

// y [M, N] = x [M, K] · Wᵀ (+ bias [N])
void run_matmul(const Runtime&, const Tensor& x, const Weight& w, const Tensor& bias, Tensor y);
// y += x, rows of any stride
void run_add(const Runtime&, const Tensor& x, Tensor y);

}  // namespace krait
