// f32 -> blocks of the quantized types, with the least weighted squared error that a search finds.
#pragma once
#include <cstdint>
#include <functional>
#include <string_view>

#include "krait/core/tensor.h"
#include "krait/core/thread_pool.h"

namespace krait::quant {

// A row of n values (whole blocks, finite, magnitudes at most kLargestWeight) -> bytes_of(type, n) bytes at `blocks`.
// importance: [n] weights >= 0 of the squared errors of the columns, or null for equal ones.
void encode_row(DType type, const float* x, const float* importance, int64_t n, void* blocks);

// The largest magnitude that every block type can hold: scales are halves.
inline constexpr float kLargestWeight = 65504;

// [..., K] f32 -> the same shape in `type`, rows in parallel; the result does not depend on threads. importance: [K] or
// undefined. Throws kBadData naming the tensor if a value is not finite or above kLargestWeight, kUsage if K is no
// multiple of the block, kInternal on another dtype or importance that is not [K], finite and >= 0.
// `progress` is told the weights of each step, some 2^20 of them; what it throws ends the work.
Tensor encode(const Tensor& rows, DType type, const Tensor& importance, ThreadPool&, std::string_view name = "tensor",
              const std::function<void(int64_t)>& progress = {});

}  // namespace krait::quant
