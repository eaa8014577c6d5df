#include "krait/backends/cpu/block_rows.h"

#include "krait/kernels/reference/dequantize.h"

namespace krait {

void decode_block_row(DType t, const void* blocks, int64_t n, float* y) { reference::dequantize_row(t, blocks, n, y); }

}  // namespace krait
