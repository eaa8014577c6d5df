// Definition of matmul and of the gradients of its weight and bias, and the oracle of their tests (at double).
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

// Σ_k x(k)·w(k), k ascending from 0, in T.
template <class T, class X, class W>
T sum_of_products(int64_t K, X x, W w) {
  T sum = 0;
  for (int64_t k = 0; k < K; ++k) sum += x(k) * w(k);
  return sum;
}

// y[m][n] = Σ_k x[m][k]·W[n][k] + bias[n].
// Here p.w is the row-major [N, K] array of the checkpoint; p.y is not used.
template <class T>
T matmul_element(const MatmulParams& p, int64_t m, int64_t n) {
  const T sum = sum_of_products<T>(
      p.K, [&](int64_t k) { return activation<T>(p.x[m * p.ldx + k], p.w_dtype, p.compute); },
      [&](int64_t k) { return weight_at<T>(p.w, p.w_dtype, n * p.K + k); });
  return p.bias == nullptr ? sum : sum + static_cast<T>(p.bias[n]);
}

// dw[n][k], from its value before.
template <class Real>
Real matmul_grad_element(const MatmulGradParamsOf<Real>& p, int64_t n, int64_t k) {
  Real sum = p.dw[n * p.K + k];
  for (int64_t t = 0; t < p.T; ++t) sum += p.dy[t * p.lddy + n] * p.x[t * p.ldx + k];
  return sum;
}

// db[n], from its value before.
template <class Real>
Real matmul_grad_bias(const MatmulGradParamsOf<Real>& p, int64_t n) {
  Real sum = p.db[n];
  for (int64_t t = 0; t < p.T; ++t) sum += p.dy[t * p.lddy + n];
  return sum;
}

}  // namespace krait::reference
