// Tensors that may be undefined, as kernels want them.
#pragma once
#include "krait/core/tensor.h"

namespace krait {

inline const float* data_or_null(const Tensor& t) { return t.defined() ? t.f32() : nullptr; }
inline float* data_or_null(Tensor& t) { return t.defined() ? t.f32() : nullptr; }
inline int64_t ld_or_zero(const Tensor& t) { return t.defined() ? t.stride(0) : 0; }

}  // namespace krait
