// Ops that carry state along a sequence. Row inputs are f32 [T, width] slices; state tensors are [n_slots, …] and are
// read and written at the slots of the context's spans. Formulas: the kernels header of the same name.
#pragma once
#include <utility>
#include <vector>

#include "krait/core/tensor.h"
#include "krait/kernels/mamba3_scan.h"
#include "krait/ops/runtime.h"

namespace krait {

// The taps of a convolution [W, C], and those that adapters make of them: [adapters of the model], or empty; undefined
// where an adapter leaves them as they are.
struct ConvTaps {
  Tensor base;
  std::vector<Tensor> adapted;

  ConvTaps() = default;
  ConvTaps(Tensor taps) : base(std::move(taps)) {}  // NOLINT(google-explicit-constructor)
  const Tensor& of(int32_t adapter) const;
};

// x [T, C] -> [T, C]; w [W, C]; b [C] or undefined; state [slots, W−1, C].
Tensor causal_conv(ForwardContext&, const Tensor& x, const ConvTaps& w, const Tensor& b, bool silu, Tensor& state);

struct Mamba1Scan {
  Tensor x, dt;    // [T, E]
  Tensor B, C;     // [T, N]
  Tensor z;        // [T, E] or undefined (no gate)
  Tensor A;        // [N, E]
  Tensor D;        // [E] or undefined
  Tensor dt_bias;  // [E] or undefined
};
// -> y [T, E], gated if z is given. state [slots, N, E].
Tensor mamba1_scan(ForwardContext&, const Mamba1Scan&, Tensor& state);

struct SsdScan {
  Tensor x;        // [T, H·P]
  Tensor dt;       // [T, H]
  Tensor B, C;     // [T, G·N]
  Tensor A;        // [H]
  Tensor D;        // [H] or [H·P], or undefined
  Tensor dt_bias;  // [H] or undefined
  float dt_min, dt_max;
  int64_t H, P, N, G;
};
// -> y [T, H·P]. state [slots, H, N, P].
Tensor ssd_scan(ForwardContext&, const SsdScan&, Tensor& state);

struct Mamba3Scan {
  Tensor z, x;                    // [T, H·P]; all row inputs share one row stride (slices of one in_proj output)
  Tensor B, C;                    // [T, R·G·N]
  Tensor dd_dt, dd_A, trap;       // [T, H]
  Tensor angle;                   // [T, F]
  Tensor dt_bias, D;              // [H]
  Tensor B_bias, C_bias;          // [H, R, N]
  Tensor B_norm, C_norm;          // [N]
  Tensor mimo_x, mimo_z, mimo_o;  // [H, R, P], or undefined
  Tensor out_norm;                // [H·P] or undefined
  float eps, A_floor;
  bool softplus_A;
  RotaryPairing pairing;
  int64_t H, P, N, G, R, F;
};
// -> out [T, H·P]. phase i32 [slots, H, F], S [slots, H, N, P], k [slots, R, H, N], x_prev [slots, H·P].
Tensor mamba3_scan(ForwardContext&, const Mamba3Scan&, Tensor& phase, Tensor& S, Tensor& k, Tensor& x_prev);

}  // namespace krait
