#include "krait/backends/cpu/isa/mamba3_head_grad.h"

#include "krait/backends/cpu/isa/matmul_pack.h"
#include "krait/backends/cpu/isa/sincos.h"
#include "krait/backends/cpu/isa/small_product.h"
#include "krait/backends/cpu/workspace.h"

namespace krait::KRAIT_ISA {
namespace {

constexpr float kPi = 3.14159265f;

// dst [cols, rows] = src [rows, cols]
void flip(const float* src, int64_t ld_src, int64_t rows, int64_t cols, float* dst, int64_t ld_dst) {
  transpose(reinterpret_cast<const char*>(src), ld_src * 4, rows, cols, dst, ld_dst);
}

void clear(float* x, int64_t n) {
  for_vectors(n, [&](int64_t i, auto lanes) { store(x + i, zero(), lanes); });
}

void add_to(float* to, const float* x, int64_t n) {
  for_vectors(n, [&](int64_t i, auto lanes) { store(to + i, add(load(to + i, lanes), load(x + i, lanes)), lanes); });
}

// [rows, P] with zeros up to Pp <- [rows, P], and back
void copy_in(const float* from, int64_t rows, int64_t P, int64_t Pp, float* to) {
  clear(to, rows * Pp);
  for (int64_t n = 0; n < rows; ++n) {
    for_vectors(P, [&](int64_t i, auto lanes) { store(to + n * Pp + i, load(from + n * P + i, lanes), lanes); });
  }
}
void copy_out(const float* from, int64_t rows, int64_t P, int64_t Pp, float* to) {
  for (int64_t n = 0; n < rows; ++n) {
    for_vectors(P, [&](int64_t i, auto lanes) { store(to + n * P + i, load(from + n * Pp + i, lanes), lanes); });
  }
}

// Scratch of a task, in floats. What the way back needs of each chunk of the window is kept; the rest is of one chunk.
struct Scratch {
  explicit Scratch(const Mamba3Chunks& at) {
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
    lanes = next(9 * at.L);
    tokens = next(3 * at.tokens);
    phase = next(at.Fp);
  }
  int64_t S, k, q, cos, sin;
  int64_t rows, bias, scaled, dS, X, dX, y, dy, XT, dyT, D, W, QK, XY, WT, theta, lanes, tokens, phase;
  int64_t size = 0;
};

class Head {
 public:
  Head(const Mamba3ScanGradParams& p, const Mamba3Chunks& at, const float* masks, const Mamba3Window& w)
      : p_(p),
        f_(p.f),
        at_(at),
        w_(w),
        o_(at),
        sum_(at),
        before_(masks),
        same_(masks + at.tokens * at.L),
        t0_(p.f.spans.offset[w.s] + w.first * at.tokens),
        end_(p.f.spans.offset[w.s + 1]),
        group_(w.h / (p.f.H / p.f.G)),
        base_(static_cast<float*>(task_workspace(static_cast<size_t>(o_.size) * sizeof(float)))) {
    const int64_t slot = f_.spans.slot[w.s];
    dphase_ = p.dphase + slot * p.dphase_stride + w.h * f_.F;
    dS_state_ = p.dS + slot * p.dS_stride + w.h * f_.N * f_.P;
    dk_state_ = p.dk + slot * p.dk_stride + w.h * f_.N;
    dx_state_ = p.dx_prev + slot * p.dx_prev_stride + w.h * f_.P;
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

  // States before each chunk of the window, keys and turns of each; the state after the last where S_out says.
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
      key(1, c, base_ + o_.q + c * at_.tile);
      float* next = c + 1 < w_.chunks ? base_ + o_.S + (c + 1) * at_.Np * at_.Pp : S_out;
      if (next != nullptr) advance(c, next);
    }
  }
  const int32_t* phase() const { return reinterpret_cast<const int32_t*>(base_ + o_.phase); }

  void back(float* parts, float* sums) {
    const Mamba3Parts part(at_);
    sums_ = sums;
    copy_in(dS_state_, f_.N, f_.P, at_.Pp, base_ + o_.dS);
    for (int64_t c = w_.chunks - 1; c >= 0; --c) walk(c, parts + c * part.size);
    if (w_.first == 0) walk_initial_state();
    copy_out(base_ + o_.dS, f_.N, f_.P, at_.Pp, dS_state_);
  }

 private:
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

  // Numbers of rows: see load_chunk(), walk_pairs() and dot_and_scale(). Of tokens: gradients of γ, ln α and dt.
  enum { kS, kGamma, kEnter, kToEnd, kLeave, kAfter, kU, kV, kDs, kLaneArrays };
  enum { kDgamma, kDa, kDdt, kTokenArrays };

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
    clear(base_ + o_.lanes, kLaneArrays * at_.L);
    clear(base_ + o_.X, at_.L * at_.Pp);
    float enter = 1.0f, to_end = 1.0f;
    for (int64_t i = 0; i < count(c); ++i) {
      enter *= gate(c, i, Mamba3Chunks::kAlpha);
      const float gamma = gate(c, i, Mamba3Chunks::kLambda) * gate(c, i, Mamba3Chunks::kDt);
      const bool end = first_token(c) + i + 1 == end_;  // nothing looks back at its outer product
      const float s = end ? gamma : gamma + gate(c, i + 1, Mamba3Chunks::kRest) * gate(c, i + 1, Mamba3Chunks::kDt);
      const float* x = f_.x + (first_token(c) + i) * f_.ld + w_.h * f_.P;
      for (int64_t r = 0, l = i * f_.R; r < f_.R; ++r, ++l) {
        lane(kEnter)[l] = enter;
        lane(kGamma)[l] = gamma;
        lane(kS)[l] = s;
        float* X = base_ + o_.X + l * at_.Pp;
        for_vectors(f_.P, [&](int64_t j, auto lanes) { store(X + j, scaled_x(r, x, j, lanes), lanes); });
      }
    }
    for (int64_t i = count(c) - 1; i >= 0; --i) {
      for (int64_t l = i * f_.R; l < (i + 1) * f_.R; ++l) {
        lane(kToEnd)[l] = to_end;
        lane(kLeave)[l] = to_end * lane(kS)[l];
      }
      to_end *= gate(c, i, Mamba3Chunks::kAlpha);
    }
    return enter;
  }

  // scaled [N, L] = tile·(weights of lanes)
  const float* scale_tile(const float* tile, const float* weights) const {
    scale_lanes(tile, weights, base_ + o_.scaled);
    return base_ + o_.scaled;
  }

  // State after chunk c.
  void advance(int64_t c, float* next) const {
    const float* S = base_ + o_.S + c * at_.Np * at_.Pp;
    const float decay = load_chunk(c);
    for_vectors(at_.Np * at_.Pp,
                [&](int64_t i, auto lanes) { store(next + i, mul(load(S + i, lanes), set1(decay)), lanes); });
    const float* k = scale_tile(base_ + o_.k + c * at_.tile, lane(kLeave));
    product(f_.N, at_.Pp, at_.L, {k, at_.L, 1}, base_ + o_.X, at_.Pp, true, next, at_.Pp);
  }

  void walk(int64_t c, float* parts) const {
    const int64_t L = at_.L, N = f_.N, P = f_.P, Pp = at_.Pp;
    const float *S = base_ + o_.S + c * at_.Np * Pp, *k = base_ + o_.k + c * at_.tile, *q = base_ + o_.q + c * at_.tile;
    float *X = base_ + o_.X, *dX = base_ + o_.dX, *y = base_ + o_.y, *dy = base_ + o_.dy, *dS = base_ + o_.dS;
    float *XT = base_ + o_.XT, *dyT = base_ + o_.dyT, *QK = base_ + o_.QK, *XY = base_ + o_.XY, *W = base_ + o_.W;
    float *dk = parts, *dq = parts + at_.tile, *WT = base_ + o_.WT;
    const float decay = load_chunk(c);
    // y of each row: from the state that enters and from the rows before, W being weights times q·k.
    product(L, Pp, N, {scale_tile(q, lane(kEnter)), 1, L}, S, Pp, false, y, Pp);
    product(L, L, N, {q, 1, L}, k, L, false, QK, L);
    weigh_pairs(c);
    product(L, Pp, L, {W, L, 1}, X, Pp, true, y, Pp);
    walk_gate(c);
    // dX: from the rows after, and from the state that leaves.
    product(L, Pp, L, {W, 1, L}, dy, Pp, true, dX, Pp);
    product(L, Pp, N, {scale_tile(k, lane(kLeave)), 1, L}, dS, Pp, true, dX, Pp);
    // dq and dk likewise, W being weights times dy·X.
    flip(dy, Pp, L, Pp, dyT, L);
    flip(X, Pp, L, Pp, XT, L);
    product(L, L, P, {dyT, 1, L}, XT, L, false, XY, L);
    walk_pairs(c);
    flip(W, L, L, L, WT, L);
    product(N, L, P, {S, Pp, 1}, dyT, L, false, dq, L);
    dot_and_scale(dq, q, kEnter, kU);
    product(N, L, L, {k, L, 1}, WT, L, true, dq, L);
    product(N, L, P, {dS, Pp, 1}, XT, L, false, dk, L);
    dot_and_scale(dk, k, kToEnd, kV);
    scale_lanes(dk, lane(kS), dk);
    product(N, L, L, {q, L, 1}, W, L, true, dk, L);
    walk_decays(c, decay, S);
    product(N, Pp, L, {scale_tile(q, lane(kEnter)), L, 1}, dy, Pp, true, dS, Pp);
    walk_x(c);
    walk_keys(c, dk, dq);
    walk_angles(c, parts + 2 * at_.tile);
    walk_gates(c);
  }

  // D[i, j], token i, row j before it: the product of the α after j's token, up to i's. W of rows: (D·s_j, or γ within
  // a token)·(q_i·k_j).
  void weigh_pairs(int64_t c) const {
    clear(base_ + o_.W, at_.L * at_.L);
    for (int64_t j = 0; j < at_.L; j += kLanes) {
      Vec d = zero();
      for (int64_t i = 0; i < count(c); ++i) {
        const Vec same = load(same_ + i * at_.L + j);
        store(base_ + o_.D + i * at_.L + j, d = mul(d, set1(gate(c, i, Mamba3Chunks::kAlpha))));
        const Vec w = fma(d, load(lane(kS) + j), mul(same, load(lane(kGamma) + j)));
        for (int64_t row = i * f_.R; row < (i + 1) * f_.R; ++row) {
          store(base_ + o_.W + row * at_.L + j, mul(w, load(base_ + o_.QK + row * at_.L + j)));
        }
        d = add(d, same);
      }
    }
  }

  // From the gradients of the weights of pairs (i, j), (q_i·k_j)·(dy_i·X_j): kDs of rows; of tokens kDgamma, and kDa by
  // the pairs that it lies between. W becomes weights times dy·X.
  void walk_pairs(int64_t c) const {
    for (int64_t i = count(c) - 1; i >= 0; --i) {
      Vec within = zero(), across = zero();
      for (int64_t j = 0; j < at_.L; j += kLanes) {
        const Vec same = load(same_ + i * at_.L + j), d = load(base_ + o_.D + i * at_.L + j), s = load(lane(kS) + j);
        const Vec w = fma(d, s, mul(same, load(lane(kGamma) + j)));
        Vec ds = load(lane(kDs) + j), after = load(lane(kAfter) + j);
        for (int64_t at = i * f_.R * at_.L + j; at < (i + 1) * f_.R * at_.L; at += at_.L) {
          const Vec xy = load(base_ + o_.XY + at), dw = mul(load(base_ + o_.QK + at), xy);
          within = fma(dw, same, within);
          ds = fma(dw, d, ds);
          after = fma(mul(dw, d), s, after);
          store(base_ + o_.W + at, mul(w, xy));
        }
        store(lane(kDs) + j, ds);
        store(lane(kAfter) + j, after);
        across = fma(after, load(before_ + i * at_.L + j), across);
      }
      token(kDgamma)[i] = sum(within);
      token(kDa)[i] = sum(across);
    }
  }

  void scale_lanes(const float* tile, const float* weights, float* out) const {
    for (int64_t l = 0; l < at_.L; l += kLanes) {
      const Vec w = load(weights + l);
      for (int64_t n = 0; n < f_.N; ++n) store(out + n * at_.L + l, mul(load(tile + n * at_.L + l), w));
    }
  }

  // tile ·= weights of lanes; then dot [L] = Σ_n tile·other of each lane.
  void dot_and_scale(float* tile, const float* other, int weights, int dot) const {
    for (int64_t l = 0; l < at_.L; l += kLanes) {
      const Vec w = load(lane(weights) + l);
      Vec s = zero();
      for (int64_t n = 0; n < f_.N; ++n) {
        const Vec v = mul(load(tile + n * at_.L + l), w);
        store(tile + n * at_.L + l, v);
        s = fma(v, load(other + n * at_.L + l), s);
      }
      store(lane(dot) + l, s);
    }
  }

  // The decay of a token lies between the rows before it, and the state that enters, and the rows from it on, and the
  // state that leaves: completes kDa. And kDs, by the state that leaves. dS decays.
  void walk_decays(int64_t c, float decay, const float* S) const {
    Vec through = zero();
    for_vectors(f_.N * at_.Pp, [&](int64_t i, auto lanes) {
      const Vec before = mul(load(base_ + o_.dS + i, lanes), set1(decay));
      through = fma(load(S + i, lanes), before, through);
      store(base_ + o_.dS + i, before, lanes);
    });
    float leaving = sum(through), entering = 0.0f;
    for (int64_t i = 0; i < count(c); ++i) {
      token(kDa)[i] += leaving;
      for (int64_t l = i * f_.R; l < (i + 1) * f_.R; ++l) {
        leaving += lane(kV)[l] * lane(kS)[l];
        lane(kDs)[l] += lane(kV)[l];
      }
    }
    for (int64_t i = count(c) - 1; i >= 0; --i) {
      for (int64_t l = i * f_.R; l < (i + 1) * f_.R; ++l) entering += lane(kU)[l];
      token(kDa)[i] += entering;
    }
  }

  // From the output to y: the gate, the norm and the skip. Leaves dy, begins dX; both zero where there is no row.
  void walk_gate(int64_t c) const {
    clear(base_ + o_.dy, at_.L * at_.Pp);
    clear(base_ + o_.dX, at_.L * at_.Pp);
    const Vec D = set1(f_.D[w_.h]);
    Vec dD = load(sums_ + sum_.D);
    for (int64_t l = 0; l < count(c) * f_.R; ++l) {
      const int64_t r = l % f_.R, t = first_token(c) + l / f_.R;
      const float* X = base_ + o_.X + l * at_.Pp;
      float *y = base_ + o_.y + l * at_.Pp, *dy = base_ + o_.dy + l * at_.Pp, *dX = base_ + o_.dX + l * at_.Pp;
      Vec squares = zero();
      for_vectors(f_.P, [&](int64_t i, auto) {
        const Vec v = fma(D, load(X + i), load(y + i));
        squares = fma(v, v, squares);
        store(y + i, v);
      });
      const float scale =
          f_.out_norm == nullptr ? 1.0f : 1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(f_.P) + f_.eps);
      const Vec mean = set1(walk_gate_row(r, t, set1(scale), y, dy) / static_cast<float>(f_.P));
      for_vectors(f_.P, [&](int64_t i, auto) {
        Vec d = load(dy + i);
        if (f_.out_norm != nullptr) d = mul(set1(scale), fnma(mul(load(y + i), set1(scale)), mean, d));
        dD = fma(d, load(X + i), dD);
        store(dy + i, d);
        store(dX + i, mul(D, d));
      });
    }
    store(sums_ + sum_.D, dD);
  }

  // The gate of one row: dy is the gradient of y·scale, for the norm; returns Σ dy·y·scale.
  float walk_gate_row(int64_t r, int64_t t, Vec scale, const float* y, float* dy) const {
    const float *z = f_.z + t * f_.ld + w_.h * f_.P, *dout = p_.dout + t * p_.lddout + w_.h * f_.P;
    float* dz = p_.dz + t * p_.ldd + w_.h * f_.P;
    const auto add_at = [](float* to, Vec v) { store(to, add(load(to), v)); };
    Vec both = zero();
    for_vectors(f_.P, [&](int64_t i, auto lanes) {
      const Vec unit = mul(load(y + i), scale), raw = load(z + i, lanes);
      const Vec weight = f_.out_norm == nullptr ? set1(1.0f) : load(f_.out_norm + w_.h * f_.P + i, lanes);
      const Vec mz = f_.mimo_z == nullptr ? set1(1.0f) : load(mimo(f_.mimo_z, r) + i, lanes);
      const Vec gate = mul(raw, mz), sigma = sigmoid(gate), act = mul(gate, sigma), normed = mul(unit, weight);
      Vec d = load(dout + i, lanes);
      if (f_.mimo_o != nullptr) {
        add_at(sums_ + sum_.mimo_o + r * at_.Pp + i, mul(mul(d, normed), act));
        d = mul(d, load(mimo(f_.mimo_o, r) + i, lanes));
      }
      const Vec dgate = mul(mul(d, normed), fma(act, sub(set1(1.0f), sigma), sigma));
      store(dz + i, fma(dgate, mz, load(dz + i, lanes)), lanes);
      if (f_.mimo_z != nullptr) add_at(sums_ + sum_.mimo_z + r * at_.Pp + i, mul(dgate, raw));
      Vec dunit = mul(d, act);
      if (f_.out_norm != nullptr) add_at(sums_ + sum_.out_norm + i, mul(dunit, unit));
      dunit = mul(dunit, weight);
      both = fma(dunit, unit, both);
      store(dy + i, dunit);
    });
    return sum(both);
  }

  // From X to x and mimo_x.
  void walk_x(int64_t c) const {
    for (int64_t i = 0; i < count(c); ++i) {
      const int64_t t = first_token(c) + i;
      const float* x = f_.x + t * f_.ld + w_.h * f_.P;
      float* dx = p_.dx + t * p_.ldd + w_.h * f_.P;
      for_vectors(f_.P, [&](int64_t j, auto lanes) {
        Vec d = t + 1 == end_ ? load(dx_state_ + j, lanes) : zero();
        for (int64_t r = 0; r < f_.R; ++r)
          d = add(d, walk_rank_x(r, load(base_ + o_.dX + (i * f_.R + r) * at_.Pp + j), x, j, lanes));
        store(dx + j, add(load(dx + j, lanes), d), lanes);
      });
    }
  }

  // What rank r's dX is to x; adds to the sums of mimo_x.
  template <class Lanes>
  Vec walk_rank_x(int64_t r, Vec dX, const float* x, int64_t i, Lanes lanes) const {
    if (f_.mimo_x == nullptr) return dX;
    float* to = sums_ + sum_.mimo_x + r * at_.Pp + i;
    store(to, fma(dX, load(x + i, lanes), load(to)));
    return mul(dX, load(mimo(f_.mimo_x, r) + i, lanes));
  }

  // From the turned keys to the angles (theta [Fp, L]), b and c: turned back in place.
  void walk_keys(int64_t c, float* dk, float* dq) const {
    if (last(c)) {
      for (int64_t r = 0; r < f_.R; ++r) {
        const int64_t l = (count(c) - 1) * f_.R + r;
        for (int64_t n = 0; n < f_.N; ++n) dk[n * at_.L + l] += dk_state_[r * f_.H * f_.N + n];
      }
    }
    const float *cos = base_ + o_.cos + c * at_.Fp * at_.L, *sin = base_ + o_.sin + c * at_.Fp * at_.L;
    for (int64_t f = 0; f < f_.F; ++f) {
      for (int64_t l = 0; l < at_.L; l += kLanes) {
        const Vec co = load(cos + f * at_.L + l), si = load(sin + f * at_.L + l);
        const int64_t at0 = pair0(f) * at_.L + l, at1 = pair1(f) * at_.L + l;
        const auto back = [&](const float* u, float* du) {
          const Vec d0 = load(du + at0), d1 = load(du + at1);
          store(du + at0, fma(d1, si, mul(d0, co)));
          store(du + at1, fnma(d0, si, mul(d1, co)));
          return fnma(d0, load(u + at1), mul(d1, load(u + at0)));
        };
        const Vec of_k = back(base_ + o_.k + c * at_.tile, dk), of_q = back(base_ + o_.q + c * at_.tile, dq);
        store(base_ + o_.theta + f * at_.L + l, add(of_k, of_q));
      }
    }
    add_to(sums_ + sum_.B_bias, dk, f_.N * at_.L);
    add_to(sums_ + sum_.C_bias, dq, f_.N * at_.L);
  }

  // Sums the angles' gradients from the end of the sequence on: kDdt, and `angle` [tokens, Fp] of tanh(angle).
  void walk_angles(int64_t c, float* angle) const {
    float* rows = base_ + o_.rows;
    flip(base_ + o_.theta, at_.L, f_.F, at_.L, rows, at_.Fp);
    for (int64_t i = count(c) - 1; i >= 0; --i) {
      const float* tanh = shared(c) + at_.tanh + i * at_.Fp;
      const Vec dt = set1(kPi * gate(c, i, Mamba3Chunks::kDt));
      Vec ddt = zero();
      for_vectors(f_.F, [&](int64_t f, auto lanes) {
        Vec v = load(dphase_ + f, lanes);
        for (int64_t l = i * f_.R; l < (i + 1) * f_.R; ++l) v = add(v, load(rows + l * at_.Fp + f, lanes));
        store(dphase_ + f, v, lanes);
        store(angle + i * at_.Fp + f, mul(v, dt), lanes);
        ddt = fma(v, load(tanh + f, lanes), ddt);
      });
      token(kDdt)[i] = kPi * sum(ddt);
    }
  }

  // From the gates to dd_dt, dd_A and trap. The look-ahead part of s is the next token's η.
  void walk_gates(int64_t c) const {
    for (int64_t i = count(c) - 1; i >= 0; --i) {
      float ds = 0.0f;
      for (int64_t l = i * f_.R; l < (i + 1) * f_.R; ++l) ds += lane(kDs)[l];
      if (first_token(c) + i + 1 < end_) add_gates(c, i + 1, 0.0f, ds, 0.0f, 0.0f);
      add_gates(c, i, token(kDgamma)[i] + ds, 0.0f, token(kDa)[i], token(kDdt)[i]);
    }
  }

  void add_gates(int64_t c, int64_t i, float dgamma, float deta, float da, float ddt) const {
    const float dt = gate(c, i, Mamba3Chunks::kDt), lambda = gate(c, i, Mamba3Chunks::kLambda);
    const float rest = gate(c, i, Mamba3Chunks::kRest);
    const int64_t out = (first_token(c) + i) * p_.ldd + w_.h;
    ddt += lambda * dgamma + rest * deta + gate(c, i, Mamba3Chunks::kA) * da;
    ddt *= gate(c, i, Mamba3Chunks::kSigma);
    p_.ddd_dt[out] += ddt;
    p_.ddd_A[out] -= dt * da * gate(c, i, Mamba3Chunks::kSlope);
    p_.dtrap[out] += dt * (dgamma - deta) * lambda * rest;
    sums_[sum_.dt_bias] += ddt;
  }

  // From the look-ahead state before the first token to k and x before it.
  void walk_initial_state() const {
    const float eta = gate(0, 0, Mamba3Chunks::kRest) * gate(0, 0, Mamba3Chunks::kDt);
    const float* dS = base_ + o_.dS;
    float deta = 0.0f;
    for (int64_t r = 0; r < f_.R; ++r) {
      for (int64_t n = 0; n < f_.N; ++n) {
        Vec s = zero();
        for_vectors(f_.P, [&](int64_t i, auto lanes) {
          s = fma(load(dS + n * at_.Pp + i, lanes), scaled_x(r, x_before(), i, lanes), s);
        });
        const float d = sum(s);
        deta += d * k_before(r)[n];
        dk_state_[r * f_.H * f_.N + n] = eta * d;
      }
    }
    for_vectors(f_.P, [&](int64_t i, auto lanes) {
      Vec dx = zero();
      for (int64_t r = 0; r < f_.R; ++r) {
        Vec dX = zero();
        for (int64_t n = 0; n < f_.N; ++n) dX = fma(load(dS + n * at_.Pp + i), set1(eta * k_before(r)[n]), dX);
        dx = add(dx, walk_rank_x(r, dX, x_before(), i, lanes));
      }
      store(dx_state_ + i, dx, lanes);
    });
    add_gates(0, 0, 0.0f, deta, 0.0f, 0.0f);
  }

  const Mamba3ScanGradParams& p_;
  const Mamba3ScanParams& f_;
  const Mamba3Chunks& at_;
  const Mamba3Window& w_;
  const Scratch o_;
  const Mamba3Sums sum_;
  float* sums_ = nullptr;
  const float *const before_, *const same_;  // [tokens, L]
  const int64_t t0_, end_;                   // first token of the window, end of the sequence
  const int64_t group_;
  float* const base_;
  float *dphase_, *dS_state_, *dk_state_, *dx_state_;
};

}  // namespace

void mamba3_masks(const Mamba3Chunks& at, int64_t R, float* masks) {
  for (int64_t i = 0; i < at.tokens; ++i) {
    for (int64_t l = 0; l < at.L; ++l) {
      masks[i * at.L + l] = l / R < i ? 1.0f : 0.0f;
      masks[(at.tokens + i) * at.L + l] = l / R == i ? 1.0f : 0.0f;
    }
  }
}

void mamba3_window_forward(const Mamba3ScanGradParams& p, const Mamba3Chunks& at, const float* masks,
                           const Mamba3Window& w, float* S_out, int32_t* phase_out) {
  Head head(p, at, masks, w);
  head.forward(S_out);
  for_vectors(at.Fp,
              [&](int64_t f, auto lanes) { store_phase(phase_out + f, load_phase(head.phase() + f, lanes), lanes); });
}

void mamba3_window_back(const Mamba3ScanGradParams& p, const Mamba3Chunks& at, const float* masks,
                        const Mamba3Window& w, float* parts, float* sums) {
  Head head(p, at, masks, w);
  head.forward(nullptr);
  head.back(parts, sums);
}

}  // namespace krait::KRAIT_ISA
