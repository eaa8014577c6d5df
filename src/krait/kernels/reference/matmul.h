// Definition of matmul, and the oracle of its tests (at double).
#pragma once
#include <cstdint>

#include "krait/core/half.h"
#include "krait/kernels/matmul.h"

namespace krait::reference {

// Element i of a weight in its stored dtype, exactly.
template <class T>
T weight_at(const void* w, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kBF16:
      return static_cast<T>(bf16_to_f32(static_cast<const uint16_t*>(w)[i]));
    case DType::kF16:
      return static_cast<T>(f16_to_f32(static_cast<const uint16_t*>(w)[i]));
    default:
      return static_cast<T>(static_cast<const float*>(w)[i]);
  }
}

// The activation as the compute mode sees it. kBF16x2 is a way to compute nearly kF32: its definition is kF32.
template <class T>
T activation(float x, DType w_dtype, Compute compute) {
  const bool rounded = compute == Compute::kBF16 && w_dtype == DType::kBF16;
  return static_cast<T>(rounded ? bf16_to_f32(f32_to_bf16(x)) : x);
}

// y[m][n] = Σ_k x[m][k]·W[n][k] + bias[n], k ascending from 0, in T.
// Here p.w is the row-major [N, K] array of the checkpoint; p.y is not used.
template <class T>
T matmul_element(const MatmulParams& p, int64_t m, int64_t n) {
  T sum = 0;
  for (int64_t k = 0; k < p.K; ++k) {
    const T x = activation<T>(p.x[m * p.ldx + k], p.w_dtype, p.compute);
    sum += x * weight_at<T>(p.w, p.w_dtype, n * p.K + k);
  }
  return p.bias == nullptr ? sum : sum + static_cast<T>(p.bias[n]);
}

}  // namespace krait::reference
