// Tiles of the integer matmul: the types shared by its driver, quantization and microkernels.
#pragma once
#include "krait/backends/cpu/isa/int8_format.h"
#include "krait/kernels/exec.h"
#include "krait/kernels/matmul.h"

namespace krait::KRAIT_ISA {

// Row counts a tile can have, and how many strips (vectors of output columns) it spans: few rows read several panels at
// once, so that there is always something to compute.
#ifdef __AVX512VNNI__
constexpr int kInt8Classes = 4;
constexpr int kInt8Rows[kInt8Classes] = {1, 2, 4, 8};
constexpr int kInt8Strips[kInt8Classes] = {4, 2, 1, 1};
#elif defined(__AVX512F__)
constexpr int kInt8Classes = 3;
constexpr int kInt8Rows[kInt8Classes] = {1, 2, 4};
constexpr int kInt8Strips[kInt8Classes] = {4, 2, 1};
#else
constexpr int kInt8Classes = 3;
constexpr int kInt8Rows[kInt8Classes] = {1, 2, 4};
constexpr int kInt8Strips[kInt8Classes] = {2, 1, 1};
#endif
constexpr int kInt8MaxRows = kInt8Rows[kInt8Classes - 1];
constexpr int kStrips = kPanel / kLanes;  // of a panel

struct Int8Tile {
  const char* x;     // packed activations
  const char* w;     // panel of the first strip
  int64_t strip;     // the first strip's number within its panel
  int64_t w_stride;  // bytes from one panel to the next
  int64_t K;
  float* y;  // [rows, cols], row stride ldy
  int64_t ldy;
  const float* bias;   // [cols] or null
  int64_t rows, cols;  // that exist: rows <= MR, cols <= 0 for strips beyond N
};

using Int8Kernel = void (*)(const Int8Tile&);

struct Int8Kernels {
  Int8Kernel wide[kInt8Classes], at[kInt8Classes];  // of kInt8Strips strips, of one
};

const Int8Kernels& int8_kernels_legacy(DType);  // blocks of 32
const Int8Kernels& int8_kernels_k(DType);       // blocks of 256

// Row r of a panel of MR rows: x [K] -> its quantized form at `panel`. A null x is a row of zeros.
void quantize_row(const Format&, const float* x, int64_t K, int MR, int r, char* panel);

size_t int8_packed_bytes(DType, int64_t N, int64_t K);
void int8_pack(const Exec&, const PackWeightParams&);
void int8_matmul(const Exec&, const MatmulParams&);

}  // namespace krait::KRAIT_ISA
