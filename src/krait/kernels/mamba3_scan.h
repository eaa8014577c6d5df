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
template <class Real>
struct Mamba3ScanParamsOf {
  SpanView spans;
  const Real* z;      // [T, H·P]      every row pointer below has row stride ld: they are slices
  const Real* x;      // [T, H·P]      of one in_proj output
  const Real* B;      // [T, R, G, N]  before the norm
  const Real* C;      // [T, R, G, N]
  const Real* dd_dt;  // [T, H]
  const Real* dd_A;   // [T, H]
  const Real* trap;   // [T, H]
  const Real* angle;  // [T, F]
  int64_t ld;
  const Real* dt_bias;   // [H]
  const Real* B_bias;    // [H, R, N]
  const Real* C_bias;    // [H, R, N]
  const Real* B_norm;    // [N]
  const Real* C_norm;    // [N]
  const Real* D;         // [H]
  const Real* mimo_x;    // [H, R, P] or null (SISO; then R must be 1, and mimo_z, mimo_o are null too)
  const Real* mimo_z;    // [H, R, P]
  const Real* mimo_o;    // [H, R, P]
  const Real* out_norm;  // [H·P] or null
  float eps;             // of all norms here
  float A_floor;
  bool softplus_A;  // the form before the published models: A = −softplus(dd_A), no floor change
  RotaryPairing pairing;
  Real* out;  // [T, H·P], row stride ldo; must not overlap the inputs
  int64_t ldo;
  // State, read and written in place; each tensor has its own slot stride in elements.
  int32_t* phase;  // [slots, H, F]
  int64_t phase_stride;
  Real* S;  // [slots, H, N, P]
  int64_t S_stride;
  Real* k;  // [slots, R, H, N] previous key: rotated, biased, unscaled
  int64_t k_stride;
  Real* x_prev;  // [slots, H·P] previous raw x
  int64_t x_prev_stride;
  int64_t H, P, N, G, R, F;  // G divides H; F <= N/2
};
using Mamba3ScanParams = Mamba3ScanParamsOf<float>;

// Gradients of mamba3_scan (spec/mamba.md §4.7). All are added to but those of states, which are replaced.
template <class Real>
struct Mamba3ScanGradParamsOf {
  Mamba3ScanParamsOf<Real> f;  // as in the forward call; out and the states are not used
  // Each sequence's states before the forward call, contiguous.
  const int32_t* phase_before;  // [n_seqs, H, F]
  const Real* S_before;         // [n_seqs, H, N, P]
  const Real* k_before;         // [n_seqs, R, H, N]
  const Real* x_prev_before;    // [n_seqs, H·P]
  const Real* dout;             // [T, H·P], row stride lddout
  int64_t lddout;
  Real *dz, *dx, *dB, *dC, *ddd_dt, *ddd_A, *dtrap, *dangle;  // rows as in f, all with row stride ldd
  int64_t ldd;
  Real *ddt_bias, *dB_bias, *dC_bias, *dB_norm, *dC_norm, *dD;  // shapes as in f; each may be null
  Real *dmimo_x, *dmimo_z, *dmimo_o, *dout_norm;                // shapes as in f; each may be null
  // States at the spans' slots; in: gradient of the state after, out: of the state before. Of phases: by the radian.
  Real* dphase;  // [slots, H, F]
  int64_t dphase_stride;
  Real* dS;  // [slots, H, N, P]
  int64_t dS_stride;
  Real* dk;  // [slots, R, H, N]
  int64_t dk_stride;
  Real* dx_prev;  // [slots, H·P]
  int64_t dx_prev_stride;
};
using Mamba3ScanGradParams = Mamba3ScanGradParamsOf<float>;

}  // namespace krait
