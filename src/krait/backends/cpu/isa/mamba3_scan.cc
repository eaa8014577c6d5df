// Mamba-3 scan. A window of tokens at a time: first, in parallel over tokens, what all heads share; then, in parallel
// over sequences and heads, the recurrence, whose state tile stays in the core's own caches from token to token.
#include "krait/backends/cpu/isa/mamba3_state.h"
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/sincos.h"
#include "krait/backends/cpu/workspace.h"

namespace krait::KRAIT_ISA {
namespace {

constexpr int64_t kWindow = 256;  // tokens

int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }

// Where the values that heads share stand in a token's row of the workspace, in floats.
struct Layout {
  explicit Layout(const Mamba3ScanParams& p) : keys(p.R * p.G * p.N) {
    B = 0;
    C = B + keys;
    turns = C + keys;    // [F] tanh(angle) / 2
    dt = turns + p.F;    // [H]
    alpha = dt + p.H;    // [H] e^(A·dt)
    beta = alpha + p.H;  // [H] α·(1−λ)·dt
    gamma = beta + p.H;  // [H] λ·dt
    row = padded(gamma + p.H);
  }
  int64_t keys, B, C, turns, dt, alpha, beta, gamma, row;
};

// Σ x²
float sum_of_squares(const float* x, int64_t n) {
  Vec s = zero();
  for_vectors(n, [&](int64_t i, auto lanes) {
    const Vec v = load(x + i, lanes);
    s = fma(v, v, s);
  });
  return sum(s);
}

float rms_scale(float squares, int64_t n, float eps) {
  return 1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + eps);
}

void norm_keys(const Mamba3ScanParams& p, const float* x, const float* weight, float* out) {
  for (int64_t i = 0; i < p.R * p.G; ++i, x += p.N, out += p.N) {
    const Vec scale = set1(rms_scale(sum_of_squares(x, p.N), p.N, p.eps));
    for_vectors(p.N, [&](int64_t n, auto lanes) {
      store(out + n, mul(mul(load(x + n, lanes), scale), load(weight + n, lanes)), lanes);
    });
  }
}

// What the heads share of row t.
void shared_values(const Mamba3ScanParams& p, const Layout& at, int64_t t, float* row) {
  const int64_t in = t * p.ld;
  norm_keys(p, p.B + in, p.B_norm, row + at.B);
  norm_keys(p, p.C + in, p.C_norm, row + at.C);
  for_vectors(p.F, [&](int64_t f, auto lanes) {
    store(row + at.turns + f, mul(tanh(load(p.angle + in + f, lanes)), set1(0.5f)), lanes);
  });
  for_vectors(p.H, [&](int64_t h, auto lanes) {
    const Vec v = load(p.dd_A + in + h, lanes), trap = load(p.trap + in + h, lanes), one = set1(1.0f);
    const Vec dt = softplus(add(load(p.dd_dt + in + h, lanes), load(p.dt_bias + h, lanes)));
    const Vec f = p.softplus_A ? softplus(v) : select_less(v, zero(), div(one, sub(one, v)), add(one, v));
    const Vec alpha = exp(mul(sub(zero(), max(set1(p.A_floor), f)), dt));
    store(row + at.dt + h, dt, lanes);
    store(row + at.alpha + h, alpha, lanes);
    store(row + at.beta + h, mul(alpha, mul(sigmoid(sub(zero(), trap)), dt)), lanes);
    store(row + at.gamma + h, mul(sigmoid(trap), dt), lanes);
  });
}

// One head of one sequence while it walks through a window.
class Head {
 public:
  Head(const Mamba3ScanParams& p, int64_t slot, int64_t h)
      : p_(p),
        h_(h),
        group_(h / (p.H / p.G)),
        ldk_(padded(p.N)),
        ldx_(padded(p.P)),
        phase_(p.phase + slot * p.phase_stride + h * p.F),
        S_(p.S + slot * p.S_stride + h * p.N * p.P),
        k_state_(p.k + slot * p.k_stride + h * p.N),
        x_state_(p.x_prev + slot * p.x_prev_stride + h * p.P) {
    const int64_t keys = p.R * ldk_, xs = p.R * ldx_, turn = padded(p.N) + 2 * kLanes;
    auto* at = static_cast<float*>(task_workspace(static_cast<size_t>(3 * keys + 3 * xs + 2 * turn) * sizeof(float)));
    for (float** part : {&k_, &k_prev_, &q_}) {
      *part = at;
      at += keys;
    }
    for (float** part : {&now_, &before_, &y_}) {
      *part = at;
      at += xs;
    }
    cos_ = at;
    sin_ = at + turn;
    for (int64_t i = 0; i < turn; ++i) {  // what no angle turns
      cos_[i] = 1.0f;
      sin_[i] = 0.0f;
    }
  }

  // Rows [t0, t1); `rows`: row t0's shared values.
  void run(const Layout& at, const float* rows, int64_t t0, int64_t t1) {
    copy_keys(k_prev_, ldk_, k_state_, p_.H * p_.N);
    const float* x_prev = x_state_;
    for (int64_t t = t0; t < t1; ++t, rows += at.row) {
      const float* x = p_.x + t * p_.ld + h_ * p_.P;
      turn(rows + at.turns, rows[at.dt + h_]);
      for (int64_t r = 0; r < p_.R; ++r) {
        const int64_t from = (r * p_.G + group_) * p_.N, bias = (h_ * p_.R + r) * p_.N;
        rotate(rows + at.B + from, p_.B_bias + bias, k_ + r * ldk_);
        rotate(rows + at.C + from, p_.C_bias + bias, q_ + r * ldk_);
        scale_x(r, x_prev, rows[at.beta + h_], before_ + r * ldx_);
        scale_x(r, x, rows[at.gamma + h_], now_ + r * ldx_);
      }
      update_and_read({p_.N, p_.P, p_.R, ldk_, ldx_, rows[at.alpha + h_], S_, k_prev_, k_, q_, before_, now_, y_});
      finish(t, x);
      x_prev = x;
      float* const k = k_;
      k_ = k_prev_;
      k_prev_ = k;
    }
    copy_keys(k_state_, p_.H * p_.N, k_prev_, ldk_);
    for_vectors(p_.P, [&](int64_t i, auto lanes) { store(x_state_ + i, load(x_prev + i, lanes), lanes); });
  }

 private:
  void copy_keys(float* to, int64_t ld_to, const float* from, int64_t ld_from) const {
    for (int64_t r = 0; r < p_.R; ++r) {
      for_vectors(
          p_.N, [&](int64_t n, auto lanes) { store(to + r * ld_to + n, load(from + r * ld_from + n, lanes), lanes); });
    }
  }

  // Advances the phases; sines and cosines as rotate() reads them: one a pair, or for interleaved pairs both lanes
  // of a pair, the first with −sin. Lanes past F load phase 0 and step 0: cos 1, sin 0.
  void turn(const float* turns, float dt) {
    for_vectors(p_.F, [&](int64_t f, auto lanes) {
      const Phase phase = add(load_phase(phase_ + f, lanes), phase_of_turns(mul(load(turns + f, lanes), set1(dt))));
      store_phase(phase_ + f, phase, lanes);
      const SinCos v = sincos(phase);
      if (p_.pairing == RotaryPairing::kHalves) {
        store(cos_ + f, v.cos);
        store(sin_ + f, v.sin);
      } else {
        store(cos_ + 2 * f, twice<0>(v.cos));
        store(cos_ + 2 * f + kLanes, twice<1>(v.cos));
        store(sin_ + 2 * f, bit_xor(twice<0>(v.sin), even_signs()));
        store(sin_ + 2 * f + kLanes, bit_xor(twice<1>(v.sin), even_signs()));
      }
    });
  }

  // out = Rot(phase)·(x + bias)
  void rotate(const float* x, const float* bias, float* out) const {
    if (p_.pairing == RotaryPairing::kInterleaved) {
      for_vectors(p_.N, [&](int64_t n, auto lanes) {
        const Vec u = add(load(x + n, lanes), load(bias + n, lanes));
        store(out + n, fma(swap_pairs(u), load(sin_ + n), mul(u, load(cos_ + n))), lanes);
      });
      return;
    }
    const int64_t half = p_.N / 2;
    for_vectors(half, [&](int64_t n, auto lanes) {
      const Vec u = add(load(x + n, lanes), load(bias + n, lanes));
      const Vec v = add(load(x + half + n, lanes), load(bias + half + n, lanes));
      const Vec c = load(cos_ + n), s = load(sin_ + n);
      store(out + n, fnma(v, s, mul(u, c)), lanes);
      store(out + half + n, fma(u, s, mul(v, c)), lanes);
    });
    if (p_.N % 2 != 0) out[p_.N - 1] = x[p_.N - 1] + bias[p_.N - 1];
  }

  // X^r = x ⊙ mimo_x[h, r]
  template <class Lanes>
  Vec rank_x(int64_t r, const float* x, int64_t i, Lanes lanes) const {
    const Vec v = load(x + i, lanes);
    return p_.mimo_x == nullptr ? v : mul(v, load(p_.mimo_x + (h_ * p_.R + r) * p_.P + i, lanes));
  }

  void scale_x(int64_t r, const float* x, float scale, float* out) const {
    for_vectors(p_.P, [&](int64_t i, auto lanes) { store(out + i, mul(rank_x(r, x, i, lanes), set1(scale))); });
  }

  // From S·q to the output: skip, norm, gate, sum over ranks.
  void finish(int64_t t, const float* x) const {
    const float* z = p_.z + t * p_.ld + h_ * p_.P;
    float* out = p_.out + t * p_.ldo + h_ * p_.P;
    const Vec D = set1(p_.D[h_]);
    for (int64_t r = 0; r < p_.R; ++r) {
      const int64_t mimo = (h_ * p_.R + r) * p_.P;
      float* y = y_ + r * ldx_;
      for_vectors(p_.P, [&](int64_t i, auto lanes) { store(y + i, fma(D, rank_x(r, x, i, lanes), load(y + i))); });
      const Vec scale = set1(p_.out_norm == nullptr ? 1.0f : rms_scale(sum_of_squares(y, p_.P), p_.P, p_.eps));
      for_vectors(p_.P, [&](int64_t i, auto lanes) {
        Vec v = load(y + i), gate = load(z + i, lanes);
        if (p_.out_norm != nullptr) v = mul(mul(v, scale), load(p_.out_norm + h_ * p_.P + i, lanes));
        if (p_.mimo_z != nullptr) gate = mul(gate, load(p_.mimo_z + mimo + i, lanes));
        v = mul(v, silu(gate));
        if (p_.mimo_o != nullptr) v = mul(v, load(p_.mimo_o + mimo + i, lanes));
        if (r > 0) v = add(load(out + i, lanes), v);
        store(out + i, v, lanes);
      });
    }
  }

  const Mamba3ScanParams& p_;
  const int64_t h_, group_;
  const int64_t ldk_, ldx_;  // row strides of the scratch below
  int32_t* const phase_;     // state
  float *const S_, *const k_state_, *const x_state_;
  float *k_, *k_prev_, *q_;    // [R, ldk]
  float *now_, *before_, *y_;  // [R, ldx] γ·X, β·X_prev, S·q; zero past P
  float *cos_, *sin_;
};

}  // namespace

void mamba3_scan(const Exec& exec, const Mamba3ScanParams& p) {
  const Layout at(p);
  const int64_t T = p.spans.n_tokens();
  auto* rows =
      static_cast<float*>(call_workspace(static_cast<size_t>((T < kWindow ? T : kWindow) * at.row) * sizeof(float)));
  int64_t first = 0;  // sequence that the window begins in
  for (int64_t w0 = 0; w0 < T; w0 += kWindow) {
    const int64_t w1 = w0 + kWindow < T ? w0 + kWindow : T;
    auto shared = [&](int64_t i) { shared_values(p, at, w0 + i, rows + i * at.row); };
    exec.pool->parallel_for(w1 - w0, shared);
    while (p.spans.offset[first + 1] <= w0) ++first;
    int64_t end = first;
    while (end < p.spans.n_seqs && p.spans.offset[end] < w1) ++end;
    exec.pool->parallel_for((end - first) * p.H, [&](int64_t task) {
      const int64_t s = first + task / p.H;
      const int64_t t0 = p.spans.offset[s] > w0 ? p.spans.offset[s] : w0;
      const int64_t t1 = p.spans.offset[s + 1] < w1 ? p.spans.offset[s + 1] : w1;
      if (t0 < t1) Head(p, p.spans.slot[s], task % p.H).run(at, rows + (t0 - w0) * at.row, t0, t1);
    });
  }
}

}  // namespace krait::KRAIT_ISA
