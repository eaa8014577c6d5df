// Small ops: gates, residual add, embedding lookup.
#pragma once
#include <cstdint>

#include "krait/core/dtype.h"

namespace krait {

// out = a · silu(gate), silu(u) = u / (1 + e^-u)
template <class Real>
struct SiluGateParamsOf {
  const Real* a;  // [T, D], row stride lda
  int64_t lda;
  const Real* gate;  // [T, D], row stride ldg
  int64_t ldg;
  Real* out;  // [T, D], row stride ldo; may be a
  int64_t ldo;
  int64_t T, D;
};
using SiluGateParams = SiluGateParamsOf<float>;

// y += x
struct AddParams {
  const float* x;  // [T, D], row stride ldx
  int64_t ldx;
  float* y;  // [T, D], row stride ldy
  int64_t ldy;
  int64_t T, D;
};

// y[t] = f32(table[ids[t]]); ids are already checked to lie in [0, V)
struct EmbedParams {
  const void* table;  // [V, D] row-major contiguous, `dtype`: kF32, kBF16, kF16 or a block type
  DType dtype;
  const int32_t* ids;  // [T]
  float* y;            // [T, D] contiguous
  int64_t T, D;
};

// Gradients of silu_gate; each is added to.
template <class Real>
struct SiluGateGradParamsOf {
  SiluGateParamsOf<Real> f;  // as in the forward call; out is not used
  const Real* dout;          // [T, D], row stride lddout
  int64_t lddout;
  Real* da;  // [T, D], row stride ldda
  int64_t ldda;
  Real* dgate;  // [T, D], row stride lddg
  int64_t lddg;
};
using SiluGateGradParams = SiluGateGradParamsOf<float>;

// dtable[ids[t]] += dy[t], t ascending
struct EmbedGradParams {
  const int32_t* ids;  // [T]
  const float* dy;     // [T, D], row stride lddy
  int64_t lddy;
  float* dtable;  // [V, D] contiguous
  int64_t T, D;
};

}  // namespace krait
