// Error bounds of the tests, each derived; raising one is a visible change.
#pragma once
#include <cmath>
#include <cstdint>

#include "krait/kernels/matmul.h"

namespace krait::tolerance {

constexpr double kF32Unit = 0x1p-24;  // unit roundoff of f32

// |y − exact| of one matmul output, for activations as the compute mode defines them (kernels/reference/matmul.h).
// K products accumulated in f32, in any order, err by at most λ·sqrt(K)·u·Σ|x_k·w_k| with probability above
// 1 − 2K·exp(−λ²/2) (Higham and Mary, A new approach to probabilistic rounding error analysis, 2019); λ = 7 leaves
// 5e-11·K, and Σ|x_k·w_k| <= ‖x‖·‖w‖. The sum with the bias rounds once more. Splitting x in two bf16 (kBF16x2) drops
// at most 2^-17·|x_k|: high leaves half a unit of 8 bits, low half a unit of 8 bits of the rest. Dot instructions flush
// subnormals: K + 1 quantities below 2^-126.
inline double matmul(Compute compute, int64_t K, double norm_x, double norm_w, double abs_y) {
  const double sum = 7.0 * std::sqrt(static_cast<double>(K)) * kF32Unit * norm_x * norm_w;
  const double split = compute == Compute::kBF16x2 ? 0x1p-17 * norm_x * norm_w : 0.0;
  const double flush = compute == Compute::kF32 ? 0.0 : static_cast<double>(K + 1) * 0x1p-126 * (1.0 + norm_x + norm_w);
  return sum + split + flush + kF32Unit * abs_y;
}

}  // namespace krait::tolerance
