#include "krait/backends/cpu/isa/mamba3_head_grad.h"

#include "krait/backends/cpu/isa/mamba3_head.h"
#include "krait/backends/cpu/isa/scan_grad.h"

namespace krait::KRAIT_ISA {
namespace {

constexpr float kPi = 3.14159265f;

class HeadGrad : public Mamba3Head {
 public:
  HeadGrad(const Mamba3ScanGradParams& p, const Mamba3Chunks& at, const float* masks, const Mamba3Window& w,
           float* sums)
      : Mamba3Head(p, at, w), sum_(at), sums_(sums), before_(masks), same_(masks + at.tokens * at.L) {
    const int64_t slot = f_.spans.slot[w.s];
    dphase_ = p.dphase + slot * p.dphase_stride + w.h * f_.F;
    dS_state_ = p.dS + slot * p.dS_stride + w.h * f_.N * f_.P;
    dk_state_ = p.dk + slot * p.dk_stride + w.h * f_.N;
    dx_state_ = p.dx_prev + slot * p.dx_prev_stride + w.h * f_.P;
  }

  void back(float* parts) {
    const Mamba3Parts part(at_);
    copy_in(dS_state_, f_.N, f_.P, at_.Pp, base_ + o_.dS);
    for (int64_t c = w_.chunks - 1; c >= 0; --c) walk(c, parts + c * part.size);
    if (w_.first == 0) walk_initial_state();
    copy_out(base_ + o_.dS, f_.N, f_.P, at_.Pp, dS_state_);
  }

 private:
  void walk(int64_t c, float* parts) const {
    const int64_t L = at_.L, N = f_.N, P = f_.P, Pp = at_.Pp;
    const float *S = base_ + o_.S + c * at_.Np * Pp, *k = base_ + o_.k + c * at_.tile, *q = base_ + o_.q + c * at_.tile;
    float *X = base_ + o_.X, *dX = base_ + o_.dX, *y = base_ + o_.y, *dy = base_ + o_.dy, *dS = base_ + o_.dS;
    float *XT = base_ + o_.XT, *dyT = base_ + o_.dyT, *QK = base_ + o_.QK, *XY = base_ + o_.XY, *W = base_ + o_.W;
    float *dk = parts, *dq = parts + at_.tile, *WT = base_ + o_.WT;
    const float decay = load_chunk(c);
    // y of each row: from the state that enters and from the rows before, W being weights times q·k.
    product(L, Pp, N, {scale_tile(q, lane(Of::kEnter)), 1, L}, S, Pp, false, y, Pp);
    product(L, L, N, {q, 1, L}, k, L, false, QK, L);
    weigh_pairs(c);
    product(L, Pp, L, {W, L, 1}, X, Pp, true, y, Pp);
    walk_gate(c);
    // dX: from the rows after, and from the state that leaves.
    product(L, Pp, L, {W, 1, L}, dy, Pp, true, dX, Pp);
    product(L, Pp, N, {scale_tile(k, lane(Of::kLeave)), 1, L}, dS, Pp, true, dX, Pp);
    // dq and dk likewise, W being weights times dy·X.
    flip(dy, Pp, L, Pp, dyT, L);
    flip(X, Pp, L, Pp, XT, L);
    product(L, L, P, {dyT, 1, L}, XT, L, false, XY, L);
    walk_pairs(c);
    flip(W, L, L, L, WT, L);
    product(N, L, P, {S, Pp, 1}, dyT, L, false, dq, L);
    dot_and_scale(dq, q, Of::kEnter, Of::kU);
    product(N, L, L, {k, L, 1}, WT, L, true, dq, L);
    product(N, L, P, {dS, Pp, 1}, XT, L, false, dk, L);
    dot_and_scale(dk, k, Of::kToEnd, Of::kV);
    scale_rows(dk, lane(Of::kS), N, L, dk);
    product(N, L, L, {q, L, 1}, W, L, true, dk, L);
    walk_decays(c, decay, S);
    product(N, Pp, L, {scale_tile(q, lane(Of::kEnter)), L, 1}, dy, Pp, true, dS, Pp);
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
        const Vec w = fma(d, load(lane(Of::kS) + j), mul(same, load(lane(Of::kGamma) + j)));
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
        const Vec same = load(same_ + i * at_.L + j), d = load(base_ + o_.D + i * at_.L + j),
                  s = load(lane(Of::kS) + j);
        const Vec w = fma(d, s, mul(same, load(lane(Of::kGamma) + j)));
        Vec ds = load(lane(Of::kDs) + j), after = load(lane(Of::kAfter) + j);
        for (int64_t at = i * f_.R * at_.L + j; at < (i + 1) * f_.R * at_.L; at += at_.L) {
          const Vec xy = load(base_ + o_.XY + at), dw = mul(load(base_ + o_.QK + at), xy);
          within = fma(dw, same, within);
          ds = fma(dw, d, ds);
          after = fma(mul(dw, d), s, after);
          store(base_ + o_.W + at, mul(w, xy));
        }
        store(lane(Of::kDs) + j, ds);
        store(lane(Of::kAfter) + j, after);
        across = fma(after, load(before_ + i * at_.L + j), across);
      }
      token(Of::kDgamma)[i] = sum(within);
      token(Of::kDa)[i] = sum(across);
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
      token(Of::kDa)[i] += leaving;
      for (int64_t l = i * f_.R; l < (i + 1) * f_.R; ++l) {
        leaving += lane(Of::kV)[l] * lane(Of::kS)[l];
        lane(Of::kDs)[l] += lane(Of::kV)[l];
      }
    }
    for (int64_t i = count(c) - 1; i >= 0; --i) {
      for (int64_t l = i * f_.R; l < (i + 1) * f_.R; ++l) entering += lane(Of::kU)[l];
      token(Of::kDa)[i] += entering;
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
    add_row(sums_ + sum_.B_bias, dk, f_.N * at_.L);
    add_row(sums_ + sum_.C_bias, dq, f_.N * at_.L);
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
      token(Of::kDdt)[i] = kPi * sum(ddt);
    }
  }

  // From the gates to dd_dt, dd_A and trap. The look-ahead part of s is the next token's η.
  void walk_gates(int64_t c) const {
    for (int64_t i = count(c) - 1; i >= 0; --i) {
      float ds = 0.0f;
      for (int64_t l = i * f_.R; l < (i + 1) * f_.R; ++l) ds += lane(Of::kDs)[l];
      if (first_token(c) + i + 1 < end_) add_gates(c, i + 1, 0.0f, ds, 0.0f, 0.0f);
      add_gates(c, i, token(Of::kDgamma)[i] + ds, 0.0f, token(Of::kDa)[i], token(Of::kDdt)[i]);
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

  const Mamba3Sums sum_;
  float* const sums_;
  const float *const before_, *const same_;  // [tokens, L]
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

void mamba3_window_forward(const Mamba3ScanGradParams& p, const Mamba3Chunks& at, const Mamba3Window& w, float* S_out,
                           int32_t* phase_out) {
  Mamba3Head head(p, at, w);
  head.forward(S_out);
  for_vectors(at.Fp,
              [&](int64_t f, auto lanes) { store_phase(phase_out + f, load_phase(head.phase() + f, lanes), lanes); });
}

void mamba3_window_back(const Mamba3ScanGradParams& p, const Mamba3Chunks& at, const float* masks,
                        const Mamba3Window& w, float* parts, float* sums) {
  HeadGrad head(p, at, masks, w, sums);
  head.forward(nullptr);
  head.back(parts);
}

}  // namespace krait::KRAIT_ISA
