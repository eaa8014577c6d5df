// Definition of mamba3_scan_grad: the recurrence walked back (spec/mamba.md §4.7), and the oracle of its tests (at
// double). States are kept at the ends of chunks only and recomputed from there.
#pragma once
#include <algorithm>
#include <vector>

#include "krait/kernels/reference/mamba3_scan.h"

namespace krait::reference {

// What one head of one sequence of L tokens hands on: to the inputs that heads share, and to its parameters.
template <class T>
struct Mamba3HeadGrads {
  Mamba3HeadGrads(const Mamba3ScanParamsOf<T>& p, int64_t L)
      : b(static_cast<size_t>(L * p.R * p.N)),
        c(b),
        angle(static_cast<size_t>(L * p.F)),
        B_bias(static_cast<size_t>(p.R * p.N)),
        C_bias(B_bias),
        mimo_x(static_cast<size_t>(p.R * p.P)),
        mimo_z(mimo_x),
        mimo_o(mimo_x),
        out_norm(static_cast<size_t>(p.P)) {}

  void add_to(const Mamba3ScanGradParamsOf<T>& p, int64_t h) const {
    const auto add = [h](const std::vector<T>& from, T* to) {
      for (size_t i = 0; to != nullptr && i < from.size(); ++i) to[static_cast<size_t>(h) * from.size() + i] += from[i];
    };
    if (p.ddt_bias != nullptr) p.ddt_bias[h] += dt_bias;
    if (p.dD != nullptr) p.dD[h] += D;
    add(B_bias, p.dB_bias);
    add(C_bias, p.dC_bias);
    add(mimo_x, p.dmimo_x);
    add(mimo_z, p.dmimo_z);
    add(mimo_o, p.dmimo_o);
    add(out_norm, p.dout_norm);
  }

  std::vector<T> b, c;   // [L, R, N] of norm(B)·B_norm + B_bias, and likewise of C
  std::vector<T> angle;  // [L, F] of π·tanh(angle)
  // Of parameters, summed over the tokens, the last first.
  T dt_bias{}, D{};
  std::vector<T> B_bias, C_bias;          // [R, N]
  std::vector<T> mimo_x, mimo_z, mimo_o;  // [R, P]
  std::vector<T> out_norm;                // [P]
};

// Head h of sequence s, walked back.
template <class T, class Phase>
class Mamba3HeadGrad {
 public:
  // phase_before [F]: the head's phases before the sequence. The gradients of states stand in `p` and are replaced.
  Mamba3HeadGrad(const Mamba3ScanGradParamsOf<T>& p, int64_t s, int64_t h, const Phase* phase_before,
                 Mamba3HeadGrads<T>& out)
      : p_(p),
        f_(p.f),
        s_(s),
        h_(h),
        t0_(f_.spans.offset[s]),
        t1_(f_.spans.offset[s + 1]),
        dphase_(p.dphase + f_.spans.slot[s] * p.dphase_stride + h * f_.F),
        dS_(p.dS + f_.spans.slot[s] * p.dS_stride + h * f_.N * f_.P),
        dk_state_(p.dk + f_.spans.slot[s] * p.dk_stride + h * f_.N),
        dx_(p.dx_prev + f_.spans.slot[s] * p.dx_prev_stride + h * f_.P),
        dk_(static_cast<size_t>(f_.R * f_.N)),
        dk_prev_(dk_),
        dq_(dk_),
        dX_(static_cast<size_t>(f_.R * f_.P)),
        dX_prev_(dX_),
        dy_(dX_),
        out_(out) {
    start_.phase.assign(phase_before, phase_before + f_.F);
    const T* S = p.S_before + (s * f_.H + h) * f_.N * f_.P;
    start_.S.assign(S, S + f_.N * f_.P);
    const T* x = p.x_prev_before + (s * f_.H + h) * f_.P;
    start_.x.assign(x, x + f_.P);
    for (int64_t r = 0; r < f_.R; ++r) {
      const T* k = p.k_before + ((s * f_.R + r) * f_.H + h) * f_.N;
      start_.k.insert(start_.k.end(), k, k + f_.N);
    }
  }

  void run() {
    std::vector<State> starts;  // of chunks
    Mamba3Token<T> token(f_);
    State now = start_;
    for (int64_t t = t0_; t < t1_; ++t) {
      if ((t - t0_) % kChunk == 0) starts.push_back(now);
      forward(t, now, token);
    }
    each_key([&](size_t at, T& dk) { dk_[at] = dk; });
    for (int64_t c = static_cast<int64_t>(starts.size()) - 1; c >= 0; --c) {
      const int64_t first = t0_ + c * kChunk;
      walk_chunk(starts[static_cast<size_t>(c)], first, std::min(first + kChunk, t1_));
    }
    each_key([&](size_t at, T& dk) { dk = dk_[at]; });
  }

 private:
  static constexpr int64_t kChunk = 32;

  struct State {
    std::vector<Phase> phase;  // [F]
    std::vector<T> S, k, x;    // [N, P], [R, N], [P]
  };

  void forward(int64_t t, State& state, Mamba3Token<T>& token) const {
    const Mamba3HeadState<T, Phase> view{state.phase.data(), state.S.data(), state.k.data(), f_.N, state.x.data()};
    mamba3_advance(f_, t, h_, view, token);
    mamba3_remember(f_, t, h_, token, view);
  }

  template <class F>
  void each_key(F f) {
    for (int64_t r = 0; r < f_.R; ++r) {
      for (int64_t n = 0; n < f_.N; ++n) f(static_cast<size_t>(r * f_.N + n), dk_state_[r * f_.H * f_.N + n]);
    }
  }

  void walk_chunk(const State& start, int64_t first, int64_t end) {
    std::vector<State> states{start};  // before each token, and after the last
    std::vector<Mamba3Token<T>> tokens;
    for (int64_t t = first; t < end; ++t) {
      states.push_back(states.back());
      forward(t, states.back(), tokens.emplace_back(f_));
    }
    for (auto i = static_cast<size_t>(end - first); i-- > 0;) {
      const int64_t t = first + static_cast<int64_t>(i);
      walk_gate(t, tokens[i]);
      const Mamba3Gates<T> dgates = walk_state(states[i], states[i + 1], tokens[i]);
      walk_x(t, states[i]);
      walk_keys(t, states[i + 1], tokens[i]);
      walk_gates(t, tokens[i].gates, dgates);
      std::swap(dk_, dk_prev_);
    }
  }

  // From the output to y: the gate, the norm and the skip. Leaves dy_, begins dX_.
  void walk_gate(int64_t t, const Mamba3Token<T>& token) {
    const int64_t P = f_.P;
    for (int64_t r = 0; r < f_.R; ++r) {
      const auto row = static_cast<size_t>(r * P);
      std::vector<T> y(token.y.begin() + r * P, token.y.begin() + (r + 1) * P);
      for (int64_t i = 0; i < P; ++i) y[static_cast<size_t>(i)] += f_.D[h_] * token.X[row + static_cast<size_t>(i)];
      const T scale = f_.out_norm == nullptr ? T(1) : mamba3_rms_scale<T>(y.data(), P, f_.eps);
      T mean = T(0);  // of the normalised y times its gradient
      for (int64_t i = 0; i < P; ++i) {
        const size_t at = row + static_cast<size_t>(i);
        const T z = f_.z[t * f_.ld + h_ * P + i], dout = p_.dout[t * p_.lddout + h_ * P + i];
        const T mz = mamba3_mimo<T>(f_, f_.mimo_z, h_, r, i), mo = mamba3_mimo<T>(f_, f_.mimo_o, h_, r, i);
        const T weight = f_.out_norm == nullptr ? T(1) : f_.out_norm[h_ * P + i];
        const T unit = y[static_cast<size_t>(i)] * scale, normed = unit * weight;
        const T dgate = dout * mo * normed * silu_derivative(z * mz);
        p_.dz[t * p_.ldd + h_ * P + i] += dgate * mz;
        out_.mimo_z[at] += dgate * z;
        out_.mimo_o[at] += dout * normed * silu(z * mz);
        dy_[at] = dout * mo * silu(z * mz);
        out_.out_norm[static_cast<size_t>(i)] += dy_[at] * unit;
        dy_[at] *= weight;
        mean += dy_[at] * unit / T(static_cast<float>(P));
      }
      for (int64_t i = 0; i < P; ++i) {
        const size_t at = row + static_cast<size_t>(i);
        if (f_.out_norm != nullptr) dy_[at] = scale * (dy_[at] - y[static_cast<size_t>(i)] * scale * mean);
        out_.D += dy_[at] * token.X[at];
        dX_[at] = f_.D[h_] * dy_[at];
      }
    }
  }

  // From y to the state, its keys and the token before: completes dX_ and dk_; dS_ becomes that of the state before.
  Mamba3Gates<T> walk_state(const State& before, const State& after, const Mamba3Token<T>& token) {
    const int64_t P = f_.P;
    const Mamba3Gates<T>& g = token.gates;
    Mamba3Gates<T> d{};
    std::fill(dX_prev_.begin(), dX_prev_.end(), T(0));
    std::fill(dk_prev_.begin(), dk_prev_.end(), T(0));
    std::fill(dq_.begin(), dq_.end(), T(0));
    for (int64_t n = 0; n < f_.N; ++n) {
      for (int64_t i = 0; i < P; ++i) {
        const auto at = static_cast<size_t>(n * P + i);
        T dS = dS_[at], G = T(0), G_prev = T(0);
        for (int64_t r = 0; r < f_.R; ++r) {
          const auto in = static_cast<size_t>(r * f_.N + n), ip = static_cast<size_t>(r * P + i);
          dS += dy_[ip] * token.q[in];
          dq_[in] += dy_[ip] * after.S[at];
          G += token.X[ip] * token.k[in];
          G_prev += token.X_prev[ip] * before.k[in];
        }
        const T dprev = g.alpha * dS;
        d.gamma += dS * G;
        d.alpha += dS * (before.S[at] + g.eta * G_prev);
        d.eta += dprev * G_prev;
        for (int64_t r = 0; r < f_.R; ++r) {
          const auto in = static_cast<size_t>(r * f_.N + n), ip = static_cast<size_t>(r * P + i);
          dk_[in] += g.gamma * dS * token.X[ip];
          dX_[ip] += g.gamma * dS * token.k[in];
          dk_prev_[in] += g.eta * dprev * token.X_prev[ip];
          dX_prev_[ip] += g.eta * dprev * before.k[in];
        }
        dS_[at] = dprev;
      }
    }
    return d;
  }

  // From X and X_prev to x, mimo_x and the x before: dx_ becomes that of the token before.
  void walk_x(int64_t t, const State& before) {
    for (int64_t i = 0; i < f_.P; ++i) {
      T dx = dx_[i], dx_prev = T(0);
      const T x = f_.x[t * f_.ld + h_ * f_.P + i], x_prev = before.x[static_cast<size_t>(i)];
      for (int64_t r = 0; r < f_.R; ++r) {
        const auto at = static_cast<size_t>(r * f_.P + i);
        const T m = mamba3_mimo<T>(f_, f_.mimo_x, h_, r, i);
        dx += dX_[at] * m;
        dx_prev += dX_prev_[at] * m;
        out_.mimo_x[at] += dX_[at] * x + dX_prev_[at] * x_prev;
      }
      p_.dx[t * p_.ldd + h_ * f_.P + i] += dx;
      dx_[i] = dx_prev;
    }
  }

  // From k and q to the phases, b and c: turned back in place.
  void walk_keys(int64_t t, const State& after, const Mamba3Token<T>& token) {
    for (int64_t f = 0; f < f_.F; ++f) {
      const auto [cos, sin] = mamba3_cos_sin<T>(after.phase[static_cast<size_t>(f)]);
      const auto [n0, n1] = mamba3_pair(f_, f);
      const auto back = [&, n0 = n0, n1 = n1, cos = cos, sin = sin](int64_t r, const std::vector<T>& u,
                                                                    std::vector<T>& du) {
        const auto i0 = static_cast<size_t>(r * f_.N + n0), i1 = static_cast<size_t>(r * f_.N + n1);
        const T d0 = du[i0], d1 = du[i1];
        dphase_[f] += d1 * u[i0] - d0 * u[i1];
        du[i0] = d0 * cos + d1 * sin;
        du[i1] = d1 * cos - d0 * sin;
      };
      for (int64_t r = 0; r < f_.R; ++r) {
        back(r, token.k, dk_);
        back(r, token.q, dq_);
      }
    }
    const size_t keys = dk_.size(), row = static_cast<size_t>(t - t0_) * keys;
    for (size_t i = 0; i < keys; ++i) {
      out_.b[row + i] = dk_[i];
      out_.c[row + i] = dq_[i];
      out_.B_bias[i] += dk_[i];
      out_.C_bias[i] += dq_[i];
    }
  }

  // From the gates and the phases to dd_dt, dd_A, trap and angle.
  void walk_gates(int64_t t, const Mamba3Gates<T>& g, const Mamba3Gates<T>& d) {
    using std::real, std::tanh;
    const int64_t in = t * f_.ld + h_, out = t * p_.ldd + h_;
    const T trap = f_.trap[in], lambda = sigmoid(trap), rest = sigmoid(-trap), da = g.alpha * d.alpha;
    T ddt = lambda * d.gamma + rest * d.eta + g.A * da;
    for (int64_t f = 0; f < f_.F; ++f) {
      ddt += dphase_[f] * T(std::numbers::pi) * tanh(f_.angle[t * f_.ld + f]);
      out_.angle[static_cast<size_t>((t - t0_) * f_.F + f)] = dphase_[f] * g.dt;
    }
    ddt *= sigmoid(f_.dd_dt[in] + f_.dt_bias[h_]);
    const T v = f_.dd_A[in], heavy = real(v) < 0 ? T(1) / (T(1) - v) : T(1);
    const T slope = f_.softplus_A ? sigmoid(v) : heavy * heavy;  // −dA / d dd_A
    const bool at_floor = real(g.A) == real(-T(f_.A_floor));
    p_.ddd_dt[out] += ddt;
    p_.ddd_A[out] += at_floor ? T(0) : -(g.dt * da * slope);
    p_.dtrap[out] += g.dt * (d.gamma - d.eta) * lambda * rest;
    out_.dt_bias += ddt;
  }

  const Mamba3ScanGradParamsOf<T>& p_;
  const Mamba3ScanParamsOf<T>& f_;
  const int64_t s_, h_, t0_, t1_;
  // Gradients of the state after the token at hand, then before it.
  T *const dphase_, *const dS_, *const dk_state_, *const dx_;  // [F], [N, P], [R, N] with row stride H·N, [P]
  std::vector<T> dk_, dk_prev_, dq_;                           // [R, N]
  std::vector<T> dX_, dX_prev_, dy_;                           // [R, P]
  Mamba3HeadGrads<T>& out_;
  State start_;
};

// Gradients of B and B_norm (or C and C_norm) of sequence s: the heads of a group are summed in order, then the norm
// is walked back. `key`: which of the heads' gradients.
template <class T>
void mamba3_norm_grad(const Mamba3ScanGradParamsOf<T>& p, int64_t s, const std::vector<Mamba3HeadGrads<T>>& heads,
                      std::vector<T> Mamba3HeadGrads<T>::* key, const T* x, const T* weight, T* dx, T* dweight) {
  const Mamba3ScanParamsOf<T>& f = p.f;
  const int64_t per_group = f.H / f.G, t0 = f.spans.offset[s], t1 = f.spans.offset[s + 1];
  std::vector<T> d(static_cast<size_t>(f.N)), sums(d);
  for (int64_t row = t0 * f.R * f.G; row < t1 * f.R * f.G; ++row) {
    const int64_t t = row / (f.R * f.G), r = row / f.G % f.R, g = row % f.G;
    const int64_t column = (r * f.G + g) * f.N;
    const T *u = x + t * f.ld + column, scale = mamba3_rms_scale<T>(u, f.N, f.eps);
    T mean = T(0);
    for (int64_t n = 0; n < f.N; ++n) {
      T sum = T(0);
      for (int64_t h = g * per_group; h < (g + 1) * per_group; ++h) {
        sum += (heads[static_cast<size_t>(h)].*key)[static_cast<size_t>(((t - t0) * f.R + r) * f.N + n)];
      }
      sums[static_cast<size_t>(n)] += sum * u[n] * scale;
      d[static_cast<size_t>(n)] = sum * weight[n];
      mean += d[static_cast<size_t>(n)] * u[n] * scale / T(static_cast<float>(f.N));
    }
    for (int64_t n = 0; n < f.N; ++n) {
      dx[t * p.ldd + column + n] += scale * (d[static_cast<size_t>(n)] - u[n] * scale * mean);
    }
  }
  for (int64_t n = 0; dweight != nullptr && n < f.N; ++n) dweight[n] += sums[static_cast<size_t>(n)];
}

// Gradients of the angles of sequence s, which all heads share.
template <class T>
void mamba3_angle_grad(const Mamba3ScanGradParamsOf<T>& p, int64_t s, const std::vector<Mamba3HeadGrads<T>>& heads) {
  using std::tanh;
  const int64_t t0 = p.f.spans.offset[s], t1 = p.f.spans.offset[s + 1];
  for (int64_t t = t0; t < t1; ++t) {
    for (int64_t f = 0; f < p.f.F; ++f) {
      T sum = T(0);
      for (const auto& head : heads) sum += head.angle[static_cast<size_t>((t - t0) * p.f.F + f)];
      const T tanh_angle = tanh(p.f.angle[t * p.f.ld + f]);
      p.dangle[t * p.ldd + f] += sum * T(std::numbers::pi) * (T(1) - tanh_angle * tanh_angle);
    }
  }
}

// Sequence s: `parallel(n, body)` runs body(i), i < n, in any order. phase_before [H, F].
template <class T, class Phase, class Parallel>
void mamba3_sequence_grad(const Mamba3ScanGradParamsOf<T>& p, int64_t s, const Phase* phase_before, Parallel parallel) {
  const Mamba3ScanParamsOf<T>& f = p.f;
  std::vector<Mamba3HeadGrads<T>> heads(static_cast<size_t>(f.H), {f, f.spans.offset[s + 1] - f.spans.offset[s]});
  parallel(f.H, [&](int64_t h) {
    Mamba3HeadGrads<T>& of_head = heads[static_cast<size_t>(h)];
    Mamba3HeadGrad<T, Phase>(p, s, h, phase_before + h * f.F, of_head).run();
    of_head.add_to(p, h);
  });
  parallel(3, [&](int64_t task) {
    if (task == 0) mamba3_norm_grad(p, s, heads, &Mamba3HeadGrads<T>::b, f.B, f.B_norm, p.dB, p.dB_norm);
    if (task == 1) mamba3_norm_grad(p, s, heads, &Mamba3HeadGrads<T>::c, f.C, f.C_norm, p.dC, p.dC_norm);
    if (task == 2) mamba3_angle_grad(p, s, heads);
  });
}

}  // namespace krait::reference
