// One head of one sequence of the Mamba-3 scan in a window of chunks: keys, and states before each chunk.
#pragma once
#include "krait/backends/cpu/isa/mamba3_head_grad.h"
#include "krait/backends/cpu/isa/sincos.h"
#include "krait/backends/cpu/isa/small_product.h"
#include "krait/backends/cpu/workspace.h"

namespace krait::KRAIT_ISA {

// [rows, P] with zeros up to Pp <- [rows, P], and back
static inline void copy_in(const float* from, int64_t rows, int64_t P, int64_t Pp, float* to) {
  clear(to, rows * Pp);
  for (int64_t n = 0; n < rows; ++n) {
    for_vectors(P, [&](int64_t i, auto lanes) { store(to + n * Pp + i, load(from + n * P + i, lanes), lanes); });
  }
}
static inline void copy_out(const float* from, int64_t rows, int64_t P, int64_t Pp, float* to) {
  for (int64_t n = 0; n < rows; ++n) {
    for_vectors(P, [&](int64_t i, auto lanes) { store(to + n * P + i, load(from + n * Pp + i, lanes), lanes); });
  }
}

// Scratch of a task, in floats. What the way back needs of each chunk of the window is kept; the rest is of one chunk.
struct Mamba3Scratch {
  // Numbers of rows: see Mamba3Head::load_chunk() and mamba3_head_grad.cc. Of tokens: gradients of γ, ln α and dt.
  enum { kS, kGamma, kEnter, kToEnd, kLeave, kAfter, kU, kV, kDs, kLaneArrays };
  enum { kDgamma, kDa, kDdt, kTokenArrays };

  explicit Mamba3Scratch(const Mamba3Chunks& at) {
    const auto next = [this](int64_t n) {
      const int64_t here = size;
      size += padded(n);
      return here;
    };
    S = next(kWindow * at.Np * at.Pp);
    k = next(kWindow * at.tile);
    q = next(kWindow * at.tile);
    cos = next(kWindow * at.Fp * at.L);
    sin = next(kWindow * at.Fp * at.L);
    rows = next(2 * at.L * at.Fp);
    bias = next(2 * at.tile);
    scaled = next(at.tile);
    dS = next(at.Np * at.Pp);
    for (int64_t* x : {&X, &dX, &y, &dy}) *x = next(at.L * at.Pp);
    XT = next(at.L * at.Pp);
    dyT = next(at.L * at.Pp);
    D = next(at.tokens * at.L);
    for (int64_t* x : {&W, &QK, &XY, &WT}) *x = next(at.L * at.L);
    theta = next(at.Fp * at.L);
    lanes = next(kLaneArrays * at.L);
    tokens = next(kTokenArrays * at.tokens);
    phase = next(at.Fp);
  }
  int64_t S, k, q, cos, sin;
  int64_t rows, bias, scaled, dS, X, dX, y, dy, XT, dyT, D, W, QK, XY, WT, theta, lanes, tokens, phase;
  int64_t size = 0;
};

class Mamba3Head {
 public:
  using Of = Mamba3Scratch;
  Mamba3Head(const Mamba3ScanGradParams& p, const Mamba3Chunks& at, const Mamba3Window& w)
      : p_(p),
        f_(p.f),
        at_(at),
        w_(w),
        o_(at),
        t0_(p.f.spans.offset[w.s] + w.first * at.tokens),
        end_(p.f.spans.offset[w.s + 1]),
        group_(w.h / (p.f.H / p.f.G)),
        base_(static_cast<float*>(task_workspace(static_cast<size_t>(o_.size) * sizeof(float)))) {
    float* bias = base_ + o_.bias;
    clear(bias, 2 * at_.tile);
    for (int64_t l = 0; l < at_.tokens * f_.R; ++l) {
      const int64_t from = (w.h * f_.R + l % f_.R) * f_.N;
      for (int64_t n = 0; n < f_.N; ++n) {
        bias[n * at_.L + l] = f_.B_bias[from + n];
        bias[at_.tile + n * at_.L + l] = f_.C_bias[from + n];
      }
    }
  }

  // States before each chunk of the window, keys and turns of each; or, with S_out, the state after the last.
  void forward(float* S_out) {
    float* S = base_ + o_.S;
    auto* phase = reinterpret_cast<int32_t*>(base_ + o_.phase);
    if (w_.first == 0) {
      initial_state(S);
      for (int64_t f = 0; f < at_.Fp; ++f) {
        phase[f] = f < f_.F ? p_.phase_before[(w_.s * f_.H + w_.h) * f_.F + f] : 0;
      }
    } else {
      for_vectors(at_.Np * at_.Pp, [&](int64_t i, auto lanes) { store(S + i, load(w_.S + i, lanes), lanes); });
      for_vectors(at_.Fp,
                  [&](int64_t f, auto lanes) { store_phase(phase + f, load_phase(w_.phase + f, lanes), lanes); });
    }
    for (int64_t c = 0; c < w_.chunks; ++c) {
      turn(c);
      key(0, c, base_ + o_.k + c * at_.tile);
      if (S_out == nullptr) key(1, c, base_ + o_.q + c * at_.tile);
      float* next = c + 1 < w_.chunks ? base_ + o_.S + (c + 1) * at_.Np * at_.Pp : S_out;
      if (next != nullptr) advance(c, next);
    }
  }
  const int32_t* phase() const { return reinterpret_cast<const int32_t*>(base_ + o_.phase); }

 protected:
  const float* shared(int64_t c) const { return w_.shared + c * at_.shared; }
  float gate(int64_t c, int64_t i, Mamba3Chunks::Gate g) const {
    return shared(c)[at_.gates + (i * Mamba3Chunks::kGates + g) * f_.H + w_.h];
  }
  int64_t first_token(int64_t c) const { return t0_ + c * at_.tokens; }
  int64_t count(int64_t c) const {  // tokens of the chunk
    const int64_t left = end_ - first_token(c);
    return left < at_.tokens ? left : at_.tokens;
  }
  bool last(int64_t c) const { return first_token(c) + at_.tokens >= end_; }
  const float* mimo(const float* m, int64_t r) const { return m + (w_.h * f_.R + r) * f_.P; }
  float* lane(int which) const { return base_ + o_.lanes + which * at_.L; }
  float* token(int which) const { return base_ + o_.tokens + which * at_.tokens; }

  // The look-ahead state before the first token.
  void initial_state(float* S) const {
    copy_in(p_.S_before + (w_.s * f_.H + w_.h) * f_.N * f_.P, f_.N, f_.P, at_.Pp, S);
    clear(S + f_.N * at_.Pp, (at_.Np - f_.N) * at_.Pp);
    const float eta = gate(0, 0, Mamba3Chunks::kRest) * gate(0, 0, Mamba3Chunks::kDt);
    for (int64_t r = 0; r < f_.R; ++r) {
      const float* k = k_before(r);
      for (int64_t n = 0; n < f_.N; ++n) {
        const Vec weight = set1(eta * k[n]);
        for_vectors(f_.P, [&](int64_t i, auto lanes) {
          float* at = S + n * at_.Pp + i;
          store(at, fma(scaled_x(r, x_before(), i, lanes), weight, load(at, lanes)), lanes);
        });
      }
    }
  }
  const float* k_before(int64_t r) const { return p_.k_before + ((w_.s * f_.R + r) * f_.H + w_.h) * f_.N; }
  const float* x_before() const { return p_.x_prev_before + (w_.s * f_.H + w_.h) * f_.P; }

  // X^r = x ⊙ mimo_x[h, r]
  template <class Lanes>
  Vec scaled_x(int64_t r, const float* x, int64_t i, Lanes lanes) const {
    const Vec v = load(x + i, lanes);
    return f_.mimo_x == nullptr ? v : mul(v, load(mimo(f_.mimo_x, r) + i, lanes));
  }

  // Advances the phases over chunk c: its cosines and sines [Fp, L].
  void turn(int64_t c) const {
    auto* phase = reinterpret_cast<int32_t*>(base_ + o_.phase);
    float *cos = base_ + o_.rows, *sin = cos + at_.L * at_.Fp;
    clear(cos, 2 * at_.L * at_.Fp);
    for (int64_t i = 0; i < count(c); ++i) {
      const float* tanh = shared(c) + at_.tanh + i * at_.Fp;
      const Vec dt = set1(gate(c, i, Mamba3Chunks::kDt));
      for_vectors(at_.Fp, [&](int64_t f, auto lanes) {
        const Vec turns = mul(mul(load(tanh + f, lanes), set1(0.5f)), dt);
        const Phase now = add(load_phase(phase + f, lanes), phase_of_turns(turns));
        store_phase(phase + f, now, lanes);
        const SinCos v = sincos(now);
        for (int64_t r = 0; r < f_.R; ++r) {
          store(cos + (i * f_.R + r) * at_.Fp + f, v.cos, lanes);
          store(sin + (i * f_.R + r) * at_.Fp + f, v.sin, lanes);
        }
      });
    }
    flip(cos, at_.Fp, at_.L, at_.Fp, base_ + o_.cos + c * at_.Fp * at_.L, at_.L);
    flip(sin, at_.Fp, at_.L, at_.Fp, base_ + o_.sin + c * at_.Fp * at_.L, at_.L);
  }

  int64_t pair0(int64_t f) const { return f_.pairing == RotaryPairing::kHalves ? f : 2 * f; }
  int64_t pair1(int64_t f) const { return f_.pairing == RotaryPairing::kHalves ? f_.N / 2 + f : 2 * f + 1; }

  // The turned keys [Np, L] of chunk c; which: 0 k, 1 q.
  void key(int64_t which, int64_t c, float* out) const {
    const float* in = shared(c) + at_.keys + (which * f_.G + group_) * at_.tile;
    const float* bias = base_ + o_.bias + which * at_.tile;
    const float* weight = which == 0 ? f_.B_norm : f_.C_norm;
    for (int64_t n = 0; n < f_.N; ++n) {
      const Vec w = broadcast(weight + n);
      for (int64_t l = n * at_.L; l < (n + 1) * at_.L; l += kLanes) {
        store(out + l, fma(load(in + l), w, load(bias + l)));
      }
    }
    const float *cos = base_ + o_.cos + c * at_.Fp * at_.L, *sin = base_ + o_.sin + c * at_.Fp * at_.L;
    for (int64_t f = 0; f < f_.F; ++f) {
      float *at0 = out + pair0(f) * at_.L, *at1 = out + pair1(f) * at_.L;
      for (int64_t l = 0; l < at_.L; l += kLanes) {
        const Vec u0 = load(at0 + l), u1 = load(at1 + l), co = load(cos + f * at_.L + l),
                  si = load(sin + f * at_.L + l);
        store(at0 + l, fnma(u1, si, mul(u0, co)));
        store(at1 + l, fma(u0, si, mul(u1, co)));
      }
    }
  }

  // Of each row of chunk c: kS the weight s of its outer product, kGamma, kEnter the product of the α up to its token,
  // kToEnd that of the α after it, kLeave that times s; and X [L, Pp]. Returns the product of all α.
  float load_chunk(int64_t c) const {
    clear(base_ + o_.lanes, Of::kLaneArrays * at_.L);
    clear(base_ + o_.X, at_.L * at_.Pp);
    float enter = 1.0f, to_end = 1.0f;
    for (int64_t i = 0; i < count(c); ++i) {
      enter *= gate(c, i, Mamba3Chunks::kAlpha);
      const float gamma = gate(c, i, Mamba3Chunks::kLambda) * gate(c, i, Mamba3Chunks::kDt);
      const bool end = first_token(c) + i + 1 == end_;  // nothing looks back at its outer product
      const float s = end ? gamma : gamma + gate(c, i + 1, Mamba3Chunks::kRest) * gate(c, i + 1, Mamba3Chunks::kDt);
      const float* x = f_.x + (first_token(c) + i) * f_.ld + w_.h * f_.P;
      for (int64_t r = 0, l = i * f_.R; r < f_.R; ++r, ++l) {
        lane(Of::kEnter)[l] = enter;
        lane(Of::kGamma)[l] = gamma;
        lane(Of::kS)[l] = s;
        float* X = base_ + o_.X + l * at_.Pp;
        for_vectors(f_.P, [&](int64_t j, auto lanes) { store(X + j, scaled_x(r, x, j, lanes), lanes); });
      }
    }
    for (int64_t i = count(c) - 1; i >= 0; --i) {
      for (int64_t l = i * f_.R; l < (i + 1) * f_.R; ++l) {
        lane(Of::kToEnd)[l] = to_end;
        lane(Of::kLeave)[l] = to_end * lane(Of::kS)[l];
      }
      to_end *= gate(c, i, Mamba3Chunks::kAlpha);
    }
    return enter;
  }

  // scaled [N, L] = tile·(weights of lanes)
  const float* scale_tile(const float* tile, const float* weights) const {
    scale_rows(tile, weights, f_.N, at_.L, base_ + o_.scaled);
    return base_ + o_.scaled;
  }

  // State after chunk c.
  void advance(int64_t c, float* next) const {
    const float* S = base_ + o_.S + c * at_.Np * at_.Pp;
    const float decay = load_chunk(c);
    for_vectors(at_.Np * at_.Pp,
                [&](int64_t i, auto lanes) { store(next + i, mul(load(S + i, lanes), set1(decay)), lanes); });
    const float* k = scale_tile(base_ + o_.k + c * at_.tile, lane(Of::kLeave));
    product(f_.N, at_.Pp, at_.L, {k, at_.L, 1}, base_ + o_.X, at_.Pp, true, next, at_.Pp);
  }

  const Mamba3ScanGradParams& p_;
  const Mamba3ScanParams& f_;
  const Mamba3Chunks& at_;
  const Mamba3Window& w_;
  const Mamba3Scratch o_;
  const int64_t t0_, end_;  // first token of the window, end of the sequence
  const int64_t group_;
  float* const base_;
};

}  // namespace krait::KRAIT_ISA
