// What the ops record on a tape: their backward steps, one function an op. Steps keep the inputs that they need, never
// the values of an output (which may have gone: add_), and weights and runtime, which belong to the model: it must
// outlive the tape.
#pragma once
#include "krait/ops/basic.h"
#include "krait/ops/recurrence.h"

namespace krait::backward {

void linear(ForwardContext&, const Tensor& x, const Weight& w, const Tensor& bias, const Tensor& y);
void norm(ForwardContext&, const Tensor& r, const NormWeights&, const Tensor& y);
void gated_norm(ForwardContext&, const Tensor& y, const Tensor& z, const Tensor& w, int64_t G, float eps,
                bool norm_before_gate, const Tensor& out);
void silu_gate(ForwardContext&, const Tensor& a, const Tensor& gate, const Tensor& out);
// sum += a, where sum had the other term
void add(ForwardContext&, const Tensor& a, const Tensor& sum);
void copy(ForwardContext&, const Tensor& from, const Tensor& to);
void embed(ForwardContext&, const Tensor& table, std::span<const int32_t> ids, bool tied, const Tensor& y);

// `before`: gather_states() before the scan changed `state`.
void causal_conv(ForwardContext&, const Tensor& x, const Tensor& w, const Tensor& b, bool silu, const Tensor& before,
                 const Tensor& state, const Tensor& y);
void mamba1_scan(ForwardContext&, const Mamba1Scan&, const Tensor& before, const Tensor& state, const Tensor& y);
void ssd_scan(ForwardContext&, const SsdScan&, const Tensor& before, const Tensor& state, const Tensor& y);
struct Mamba3States {
  Tensor phase, S, k, x_prev;
};
void mamba3_scan(ForwardContext&, const Mamba3Scan&, const Mamba3States& before, const Mamba3States& state,
                 const Tensor& out);

}  // namespace krait::backward
