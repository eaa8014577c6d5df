// Definition of mamba3_scan (at float, the portable kernel), and the oracle of its tests (at double). T may be any
// number type with the functions used here; float and int constants convert to it exactly. Phases are int32_t, as the
// contract has them, or T: plain radians, which derivatives can pass through.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include "krait/kernels/mamba3_scan.h"
#include "krait/kernels/reference/math.h"

namespace krait::reference {

// The scalars of one token and head.
template <class T>
struct Mamba3Gates {
  T dt, A, alpha, gamma, eta;
};

template <class T, class Real>
Mamba3Gates<T> mamba3_gates(const Mamba3ScanParamsOf<Real>& p, int64_t t, int64_t h) {
  using std::exp, std::real;
  const int64_t at = t * p.ld + h;
  const T v = static_cast<T>(p.dd_A[at]), trap = static_cast<T>(p.trap[at]);
  const T dt = softplus(static_cast<T>(p.dd_dt[at]) + static_cast<T>(p.dt_bias[h]));
  const T f = p.softplus_A ? softplus(v) : real(v) < 0 ? T(1) / (T(1) - v) : T(1) + v;
  const T A = real(f) < real(T(p.A_floor)) ? -T(p.A_floor) : -f;
  return {dt, A, exp(A * dt), sigmoid(trap) * dt, sigmoid(-trap) * dt};
}

// Advances a phase by tanh(angle)·dt / 2 turns. In fixed point by units of 2^-32 turn, to nearest even; whole turns
// fall away.
template <class T>
void mamba3_turn(int32_t& phase, T angle, T dt) {
  using std::abs, std::nearbyint, std::tanh;
  const T turns = tanh(angle) * T(0.5f) * dt;
  const T part = turns - nearbyint(turns);
  uint32_t step = 0x80000000u;  // NaN in, some angle out
  if (abs(part) < T(1)) step = static_cast<uint32_t>(static_cast<int64_t>(nearbyint(part * T(0x1p32f))));
  phase = static_cast<int32_t>(static_cast<uint32_t>(phase) + step);
}
template <class T>
void mamba3_turn(T& theta, T angle, T dt) {
  using std::tanh;
  theta += T(std::numbers::pi) * tanh(angle) * dt;
}

// Cosine and sine of a phase; those of a fixed-point one in double, so that the float kernel rounds them once.
template <class T>
std::pair<T, T> mamba3_cos_sin(int32_t phase) {
  const double theta = static_cast<double>(phase) * (0x1p-31 * std::numbers::pi);
  return {static_cast<T>(std::cos(theta)), static_cast<T>(std::sin(theta))};
}
template <class T>
std::pair<T, T> mamba3_cos_sin(T theta) {
  using std::cos, std::sin;
  return {cos(theta), sin(theta)};
}

// The two dimensions of pair f.
template <class Real>
std::pair<int64_t, int64_t> mamba3_pair(const Mamba3ScanParamsOf<Real>& p, int64_t f) {
  if (p.pairing == RotaryPairing::kHalves) return {f, p.N / 2 + f};
  return {2 * f, 2 * f + 1};
}

// 1 / sqrt(mean of squares + eps)
template <class T, class Real>
T mamba3_rms_scale(const Real* x, int64_t n, float eps) {
  T squares = T(0);
  for (int64_t i = 0; i < n; ++i) squares += static_cast<T>(x[i]) * static_cast<T>(x[i]);
  return rsqrt(squares / T(static_cast<float>(n)) + T(eps));
}

// out[n] = Rot(phase)·(RMSNorm(row)·weight + bias), n < N.
template <class T, class Phase, class Real>
void mamba3_key(const Mamba3ScanParamsOf<Real>& p, const Real* row, const Real* weight, const Real* bias,
                const Phase* phase, T* out) {
  const T scale = mamba3_rms_scale<T>(row, p.N, p.eps);
  for (int64_t n = 0; n < p.N; ++n) {
    out[n] = static_cast<T>(row[n]) * scale * static_cast<T>(weight[n]) + static_cast<T>(bias[n]);
  }
  for (int64_t f = 0; f < p.F; ++f) {
    const auto [c, s] = mamba3_cos_sin<T>(phase[f]);
    const auto [i0, i1] = mamba3_pair(p, f);
    const T u0 = out[i0], u1 = out[i1];
    out[i0] = u0 * c - u1 * s;
    out[i1] = u0 * s + u1 * c;
  }
}

// State of one head of one sequence.
template <class T, class Phase = int32_t>
struct Mamba3HeadState {
  Phase* phase;  // [F]
  T* S;          // [N, P]
  T* k;          // [R, N], row stride ldk
  int64_t ldk;
  T* x_prev;  // [P]
};

template <class T, class Real>
T mamba3_mimo(const Mamba3ScanParamsOf<Real>& p, const Real* m, int64_t h, int64_t r, int64_t i) {
  return m == nullptr ? T(1) : static_cast<T>(m[(h * p.R + r) * p.P + i]);
}

// What one token is to one head.
template <class T>
struct Mamba3Token {
  template <class Real>
  explicit Mamba3Token(const Mamba3ScanParamsOf<Real>& p)
      : k(static_cast<size_t>(p.R * p.N)), q(k), X(static_cast<size_t>(p.R * p.P)), X_prev(X), y(X) {}
  Mamba3Gates<T> gates{};
  std::vector<T> k, q;       // [R, N], rotated
  std::vector<T> X, X_prev;  // [R, P]
  std::vector<T> y;          // [R, P] S·q
};

// Token t of head h: advances the phases and S of the state, fills `token`; k and x_prev remain those before it.
template <class T, class Phase, class Real>
void mamba3_advance(const Mamba3ScanParamsOf<Real>& p, int64_t t, int64_t h, const Mamba3HeadState<T, Phase>& state,
                    Mamba3Token<T>& token) {
  const int64_t N = p.N, P = p.P, R = p.R, group = h / (p.H / p.G);
  const auto g = token.gates = mamba3_gates<T>(p, t, h);
  for (int64_t f = 0; f < p.F; ++f) mamba3_turn(state.phase[f], static_cast<T>(p.angle[t * p.ld + f]), g.dt);
  const Real* x = p.x + t * p.ld + h * P;
  for (int64_t r = 0; r < R; ++r) {
    const int64_t row = t * p.ld + (r * p.G + group) * N, bias = (h * R + r) * N;
    mamba3_key(p, p.B + row, p.B_norm, p.B_bias + bias, state.phase, &token.k[static_cast<size_t>(r * N)]);
    mamba3_key(p, p.C + row, p.C_norm, p.C_bias + bias, state.phase, &token.q[static_cast<size_t>(r * N)]);
    for (int64_t i = 0; i < P; ++i) {
      const T m = mamba3_mimo<T>(p, p.mimo_x, h, r, i);
      token.X[static_cast<size_t>(r * P + i)] = static_cast<T>(x[i]) * m;
      token.X_prev[static_cast<size_t>(r * P + i)] = state.x_prev[i] * m;
    }
  }
  std::fill(token.y.begin(), token.y.end(), T(0));
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t i = 0; i < P; ++i) {
      T before = T(0), now = T(0);
      for (int64_t r = 0; r < R; ++r) {
        before += token.X_prev[static_cast<size_t>(r * P + i)] * state.k[r * state.ldk + n];
        now += token.X[static_cast<size_t>(r * P + i)] * token.k[static_cast<size_t>(r * N + n)];
      }
      T& S = state.S[n * P + i];
      S = g.alpha * (S + g.eta * before) + g.gamma * now;
      for (int64_t r = 0; r < R; ++r) {
        token.y[static_cast<size_t>(r * P + i)] += S * token.q[static_cast<size_t>(r * N + n)];
      }
    }
  }
}

// Token t as the previous one.
template <class T, class Phase, class Real>
void mamba3_remember(const Mamba3ScanParamsOf<Real>& p, int64_t t, int64_t h, const Mamba3Token<T>& token,
                     const Mamba3HeadState<T, Phase>& state) {
  for (int64_t i = 0; i < p.P; ++i) state.x_prev[i] = static_cast<T>(p.x[t * p.ld + h * p.P + i]);
  for (int64_t r = 0; r < p.R; ++r) {
    for (int64_t n = 0; n < p.N; ++n) state.k[r * state.ldk + n] = token.k[static_cast<size_t>(r * p.N + n)];
  }
}

// y [R, P], complete up to the gate.
template <class T, class Real>
void mamba3_skip_and_norm(const Mamba3ScanParamsOf<Real>& p, int64_t h, const T* X, T* y) {
  for (int64_t r = 0; r < p.R; ++r, X += p.P, y += p.P) {
    for (int64_t i = 0; i < p.P; ++i) y[i] += static_cast<T>(p.D[h]) * X[i];
    if (p.out_norm == nullptr) continue;
    const T scale = mamba3_rms_scale<T>(y, p.P, p.eps);
    for (int64_t i = 0; i < p.P; ++i) y[i] *= scale * static_cast<T>(p.out_norm[h * p.P + i]);
  }
}

// Rows [t0, t1) of the packed batch, all of one sequence, head h; out: row t0's [P], row stride ldo.
template <class T, class Phase, class Real>
void mamba3_head(const Mamba3ScanParamsOf<Real>& p, int64_t t0, int64_t t1, int64_t h,
                 const Mamba3HeadState<T, Phase>& state, T* out, int64_t ldo) {
  Mamba3Token<T> token(p);
  for (int64_t t = t0; t < t1; ++t, out += ldo) {
    mamba3_advance(p, t, h, state, token);
    mamba3_skip_and_norm(p, h, token.X.data(), token.y.data());
    for (int64_t i = 0; i < p.P; ++i) {
      const T z = static_cast<T>(p.z[t * p.ld + h * p.P + i]);
      out[i] = T(0);
      for (int64_t r = 0; r < p.R; ++r) {
        const T gate = z * mamba3_mimo<T>(p, p.mimo_z, h, r, i);
        out[i] += mamba3_mimo<T>(p, p.mimo_o, h, r, i) * token.y[static_cast<size_t>(r * p.P + i)] * silu(gate);
      }
    }
    mamba3_remember(p, t, h, token, state);
  }
}

}  // namespace krait::reference
