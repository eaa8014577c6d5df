// Checkpoint order -> kernel order of small f32 tensors, done once at load.
#pragma once
#include <algorithm>

#include "krait/core/tensor.h"

namespace krait {

// [A, B] -> [B, A]
inline Tensor transposed(const Tensor& t) {
  const int64_t A = t.dim(0), B = t.dim(1);
  Tensor r = Tensor::empty({B, A});
  const float* from = t.f32();
  float* to = r.f32();
  constexpr int64_t kRun = 16;  // of each output row, so that a cache line is written at once
  for (int64_t i0 = 0; i0 < A; i0 += kRun) {
    for (int64_t j = 0; j < B; ++j) {
      for (int64_t i = i0; i < std::min(i0 + kRun, A); ++i) to[j * A + i] = from[i * B + j];
    }
  }
  return r;
}

// conv1d.weight [C, 1, W] -> taps [W, C]
inline Tensor conv_taps(const Tensor& w) { return transposed(w.reshape({w.dim(0), w.dim(2)})); }

}  // namespace krait
