// Weights of any stored type as f32.
#pragma once
#include "krait/core/tensor.h"

namespace krait {

// Contiguous f32 copy, same shape, of a f32, bf16, f16 or block tensor; throws kInternal on another type.
Tensor dequantize(const Tensor&);

// Infinite and NaN elements among n stored ones (whole blocks: their scales tell); none in types of integers.
int64_t count_non_finite(DType, const void* data, int64_t n);

}  // namespace krait
