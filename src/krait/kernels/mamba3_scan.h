// Trapezoidal, rotated scan of Mamba-3, SISO and MIMO, from the rows of in_proj to the input of out_proj
// (spec/mamba.md §4.3, §4.4).
#pragma once
#include <cstdint>

#include "krait/kernels/exec.h"

namespace krait {

enum class RotaryPairing : uint8_t {
  kInterleaved,  // SISO: pair f = (2f, 2f+1)
  kHalves,       // MIMO: pair f = (f, N/2 + f)
};

// Per token and head h, with heads h of group g(h) = h div (H/G):
//   A = min(−f(dd_A), −A_floor), f(v) = 1+v (v >= 0), 1/(1−v) (v < 0);  dt = softplus(dd_dt + dt_bias)
//   α = exp(A·dt);  λ = σ(trap);  γ = λ·dt;  η = (1−λ)·dt
//   phase[h,f] += tanh(angle[f])·dt / 2   in turns; θ = 2π·phase (= the spec's θ += π·tanh(angle)·dt)
//   b^r = RMSNorm_N(B^{r,g})·B_norm + B_bias[h,r];  c^r likewise;  k^r = Rot(θ)·b^r;  q^r = Rot(θ)·c^r
//   X^r = x ⊙ mimo_x[h,r]   (SISO, R = 1: X = x)
//   S[n,p] = α·(S[n,p] + η·Σ_r X_prev^r[p]·k_prev^r[n]) + γ·Σ_r X^r[p]·k^r[n]
//   y^r[p] = Σ_n S[n,p]·q^r[n] + D[h]·X^r[p]
//   out_norm: y^r = y^r · rsqrt(mean_P(y^r²) + eps) · out_norm[h·P + p]
//   out[p] = Σ_r mimo_o[h,r,p] · y^r[p] · silu(z[p]·mimo_z[h,r,p])   (SISO: y·silu(z))
// Phases are 32-bit fixed point, 2^32 = one turn: they wrap by themselves, and 10^6 steps lose nothing.
struct Mamba3ScanParams {
  SpanView spans;
  const float* z;      // [T, H·P]      every row pointer below has row stride ld: they are slices
  const float* x;      // [T, H·P]      of one in_proj output
  const float* B;      // [T, R, G, N]  before the norm
  const float* C;      // [T, R, G, N]
  const float* dd_dt;  // [T, H]
  const float* dd_A;   // [T, H]
  const float* trap;   // [T, H]
  const float* angle;  // [T, F]
  int64_t ld;
  const float* dt_bias;   // [H]
  const float* B_bias;    // [H, R, N]
  const float* C_bias;    // [H, R, N]
  const float* B_norm;    // [N]
  const float* C_norm;    // [N]
  const float* D;         // [H]
  const float* mimo_x;    // [H, R, P] or null (SISO; then R must be 1, and mimo_z, mimo_o are null too)
  const float* mimo_z;    // [H, R, P]
  const float* mimo_o;    // [H, R, P]
  const float* out_norm;  // [H·P] or null
  float eps;              // of all norms here
  float A_floor;
  bool softplus_A;  // the form before the published models: A = −softplus(dd_A), no floor change
  RotaryPairing pairing;
  float* out;  // [T, H·P], row stride ldo; must not overlap the inputs
  int64_t ldo;
  // State, read and written in place; each tensor has its own slot stride in elements.
  int32_t* phase;  // [slots, H, F]
  int64_t phase_stride;
  float* S;  // [slots, H, N, P]
  int64_t S_stride;
  float* k;  // [slots, R, H, N] previous key: rotated, biased, unscaled
  int64_t k_stride;
  float* x_prev;  // [slots, H·P] previous raw x
  int64_t x_prev_stride;
  int64_t H, P, N, G, R, F;  // G divides H; F <= N/2
};

}  // namespace krait
