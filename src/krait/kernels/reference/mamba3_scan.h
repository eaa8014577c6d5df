// Definition of mamba3_scan (at float, the portable kernel), and the oracle of its tests (at double). T may be any
// number type with the functions used here; float and int constants convert to it exactly.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include "krait/kernels/mamba3_scan.h"

namespace krait::reference {

template <class T>
T mamba3_softplus(T u) {  // log(1 + e^u)
  using std::abs, std::exp, std::log1p, std::max;
  return max(u, T(0)) + log1p(exp(-abs(u)));
}

template <class T>
T mamba3_sigmoid(T u) {
  using std::exp;
  return T(1) / (T(1) + exp(-u));
}

// The scalars of one token and head.
template <class T>
struct Mamba3Gates {
  T dt, alpha, gamma, eta;
};

template <class T>
Mamba3Gates<T> mamba3_gates(const Mamba3ScanParams& p, int64_t t, int64_t h) {
  using std::exp, std::min;
  const int64_t at = t * p.ld + h;
  const T v = static_cast<T>(p.dd_A[at]), trap = static_cast<T>(p.trap[at]);
  const T dt = mamba3_softplus(static_cast<T>(p.dd_dt[at]) + static_cast<T>(p.dt_bias[h]));
  const T f = p.softplus_A ? mamba3_softplus(v) : v < T(0) ? T(1) / (T(1) - v) : T(1) + v;
  const T A = min(-f, -static_cast<T>(p.A_floor));
  return {dt, exp(A * dt), mamba3_sigmoid(trap) * dt, mamba3_sigmoid(-trap) * dt};
}

// tanh(angle)·dt / 2 turns in units of 2^-32 turn, to nearest even; whole turns fall away.
template <class T>
uint32_t mamba3_phase_step(T angle, T dt) {
  using std::abs, std::nearbyint, std::tanh;
  const T turns = tanh(angle) * T(0.5f) * dt;
  const T part = turns - nearbyint(turns);
  if (!(abs(part) < T(1))) return 0x80000000u;  // NaN in, some angle out
  return static_cast<uint32_t>(static_cast<int64_t>(nearbyint(part * T(0x1p32f))));
}

// out[n] = Rot(2π·phase / 2^32) · (RMSNorm(row)·weight + bias), n < N.
template <class T>
void mamba3_key(const Mamba3ScanParams& p, const float* row, const float* weight, const float* bias,
                const int32_t* phase, T* out) {
  using std::sqrt;
  T squares = T(0);
  for (int64_t n = 0; n < p.N; ++n) squares += static_cast<T>(row[n]) * static_cast<T>(row[n]);
  const T scale = T(1) / sqrt(squares / static_cast<T>(p.N) + static_cast<T>(p.eps));
  for (int64_t n = 0; n < p.N; ++n) {
    out[n] = static_cast<T>(row[n]) * scale * static_cast<T>(weight[n]) + static_cast<T>(bias[n]);
  }
  for (int64_t f = 0; f < p.F; ++f) {
    // In double: the float kernel then rounds sine and cosine once.
    const double theta = static_cast<double>(phase[f]) * (0x1p-31 * std::numbers::pi);
    const T c = static_cast<T>(std::cos(theta)), s = static_cast<T>(std::sin(theta));
    const bool halves = p.pairing == RotaryPairing::kHalves;
    T& u0 = out[halves ? f : 2 * f];
    T& u1 = out[halves ? p.N / 2 + f : 2 * f + 1];
    const T v0 = u0, v1 = u1;
    u0 = v0 * c - v1 * s;
    u1 = v0 * s + v1 * c;
  }
}

// State of one head of one sequence.
template <class T>
struct Mamba3HeadState {
  int32_t* phase;  // [F]
  T* S;            // [N, P]
  T* k;            // [R, N], row stride ldk
  int64_t ldk;
  T* x_prev;  // [P]
};

// y [R, P], complete up to the gate.
template <class T>
void mamba3_skip_and_norm(const Mamba3ScanParams& p, int64_t h, const T* X, T* y) {
  using std::sqrt;
  for (int64_t r = 0; r < p.R; ++r) {
    T squares = T(0);
    for (int64_t i = 0; i < p.P; ++i) {
      T& v = y[r * p.P + i];
      v += static_cast<T>(p.D[h]) * X[r * p.P + i];
      squares += v * v;
    }
    if (p.out_norm == nullptr) continue;
    const T scale = T(1) / sqrt(squares / static_cast<T>(p.P) + static_cast<T>(p.eps));
    for (int64_t i = 0; i < p.P; ++i) y[r * p.P + i] *= scale * static_cast<T>(p.out_norm[h * p.P + i]);
  }
}

// Rows [t0, t1) of the packed batch, all of one sequence, head h; out: row t0's [P], row stride ldo.
template <class T>
void mamba3_head(const Mamba3ScanParams& p, int64_t t0, int64_t t1, int64_t h, const Mamba3HeadState<T>& state, T* out,
                 int64_t ldo) {
  const int64_t N = p.N, P = p.P, R = p.R, group = h / (p.H / p.G);
  std::vector<T> k(static_cast<size_t>(R * N)), q(k), X(static_cast<size_t>(R * P)), X_prev(X), y(X);
  const auto mimo = [&](const float* m, int64_t r, int64_t i) {
    return m == nullptr ? T(1) : static_cast<T>(m[(h * R + r) * P + i]);
  };
  for (int64_t t = t0; t < t1; ++t) {
    const Mamba3Gates<T> g = mamba3_gates<T>(p, t, h);
    for (int64_t f = 0; f < p.F; ++f) {
      const uint32_t step = mamba3_phase_step<T>(static_cast<T>(p.angle[t * p.ld + f]), g.dt);
      state.phase[f] = static_cast<int32_t>(static_cast<uint32_t>(state.phase[f]) + step);
    }
    const float* x = p.x + t * p.ld + h * P;
    const float* z = p.z + t * p.ld + h * P;
    for (int64_t r = 0; r < R; ++r) {
      const int64_t row = t * p.ld + (r * p.G + group) * N, bias = (h * R + r) * N;
      mamba3_key(p, p.B + row, p.B_norm, p.B_bias + bias, state.phase, &k[static_cast<size_t>(r * N)]);
      mamba3_key(p, p.C + row, p.C_norm, p.C_bias + bias, state.phase, &q[static_cast<size_t>(r * N)]);
      for (int64_t i = 0; i < P; ++i) {
        X[static_cast<size_t>(r * P + i)] = static_cast<T>(x[i]) * mimo(p.mimo_x, r, i);
        X_prev[static_cast<size_t>(r * P + i)] = state.x_prev[i] * mimo(p.mimo_x, r, i);
        y[static_cast<size_t>(r * P + i)] = T(0);
      }
    }
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t i = 0; i < P; ++i) {
        T before = T(0), now = T(0);
        for (int64_t r = 0; r < R; ++r) {
          before += X_prev[static_cast<size_t>(r * P + i)] * state.k[r * state.ldk + n];
          now += X[static_cast<size_t>(r * P + i)] * k[static_cast<size_t>(r * N + n)];
        }
        T& S = state.S[n * P + i];
        S = g.alpha * (S + g.eta * before) + g.gamma * now;
        for (int64_t r = 0; r < R; ++r) y[static_cast<size_t>(r * P + i)] += S * q[static_cast<size_t>(r * N + n)];
      }
    }
    mamba3_skip_and_norm(p, h, X.data(), y.data());
    for (int64_t i = 0; i < P; ++i) {
      T sum = T(0);
      for (int64_t r = 0; r < R; ++r) {
        const T gate = static_cast<T>(z[i]) * mimo(p.mimo_z, r, i);
        sum += mimo(p.mimo_o, r, i) * y[static_cast<size_t>(r * P + i)] * (gate * mamba3_sigmoid(gate));
      }
      out[(t - t0) * ldo + i] = sum;
      state.x_prev[i] = static_cast<T>(x[i]);
    }
    for (int64_t r = 0; r < R; ++r) {
      for (int64_t n = 0; n < N; ++n) state.k[r * state.ldk + n] = k[static_cast<size_t>(r * N + n)];
    }
  }
}

}  // namespace krait::reference
