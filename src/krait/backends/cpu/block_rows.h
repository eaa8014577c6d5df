// Rows of block types as f32: the definition, compiled for every CPU.
#pragma once
#include <cstdint>

#include "krait/core/dtype.h"

namespace krait {

// n elements (whole blocks, any alignment) -> y [n].
void decode_block_row(DType, const void* blocks, int64_t n, float* y);

}  // namespace krait
