// Ops that are not recurrences. Inputs are f32 [T, D], rows contiguous (a row stride is allowed: slices of a wider
// tensor). Each checks shapes and throws kInternal naming the op, the rule and the values.
// Under a tape what is needed to go backward is not overwritten: then an op that works in place gives its tensor
// argument a fresh buffer instead.
#pragma once
#include <span>

#include "krait/core/tensor.h"
#include "krait/ops/weight.h"

namespace krait {

// y = x · Wᵀ (+ bias): x [T, K] -> [T, N]. bias [N] or undefined.
Tensor linear(ForwardContext&, const Tensor& x, const Weight& w, const Tensor& bias = {});

struct NormWeights {
  NormKind kind = NormKind::kRms;
  Tensor w;  // [D] or undefined (= 1)
  Tensor b;  // [D], LayerNorm only
  float eps = 1e-5f;
};
// norm(x), a fresh tensor.
Tensor norm(ForwardContext&, const Tensor& x, const NormWeights&);
// residual += x, then norm(residual). x may be undefined (nothing to add).
Tensor add_norm(ForwardContext&, const Tensor& x, Tensor& residual, const NormWeights&);
// Weightless RMSNorm of x, in place (FalconMamba's dt, B, C).
void rms_norm_(ForwardContext&, Tensor& x, float eps);

// Gated RMSNorm in G groups (kernels/norm.h); y is overwritten.
void gated_norm_(ForwardContext&, Tensor& y, const Tensor& z, const Tensor& w, int64_t G, float eps,
                 bool norm_before_gate);
// a · silu(gate) -> out, which may be a.
void silu_gate(ForwardContext&, const Tensor& a, const Tensor& gate, Tensor& out);
// Rows of `from` into `to`, a slice of a wider tensor.
void copy_(ForwardContext&, Tensor& to, const Tensor& from);
// residual += x. Under a tape the sum takes x's place in memory instead, and its gradient is that of x.
void add_(ForwardContext&, Tensor& residual, const Tensor& x);
// rows of `table` [V, D] -> f32 [T, D]; throws kBadData on an id outside [0, V). `tied`: the table is the head's, too;
// its gradient is then summed apart (Gradients::apart).
Tensor embed(ForwardContext&, const Tensor& table, std::span<const int32_t> ids, bool tied = false);

// Throws kInternal unless x is f32 [rows, D] with contiguous rows. -1: any.
void check_rows(const char* op, const char* name, const Tensor& x, int64_t rows, int64_t D);

}  // namespace krait
