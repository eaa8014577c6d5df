// Checkpoint order -> kernel order of small f32 tensors, done once at load.
#pragma once
#include "krait/core/tensor.h"

namespace krait {

// [A, B] -> [B, A]
inline Tensor transposed(const Tensor& t) {
  const int64_t A = t.dim(0), B = t.dim(1);
  Tensor r = Tensor::empty({B, A});
  for (int64_t i = 0; i < A; ++i)
    for (int64_t j = 0; j < B; ++j) r.f32()[j * A + i] = t.f32()[i * B + j];
  return r;
}

// conv1d.weight [C, 1, W] -> taps [W, C]
inline Tensor conv_taps(const Tensor& w) { return transposed(w.reshape({w.dim(0), w.dim(2)})); }

}  // namespace krait
