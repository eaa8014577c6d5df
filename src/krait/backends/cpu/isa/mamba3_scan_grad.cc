// Gradients of the Mamba-3 scan in its chunked form (spec/mamba.md §4.7): unlike differences of running sums, its sums
// of products keep every decay's gradient to its own scale. Seven products with the state a row, as dense ones.
//
// First, window after window, forward: the states before each window. Then from the last window to the first: what
// heads share of its chunks; heads forward through the window, and back; what heads have in common, summed over them
// in order. Which sequences go together never shows: each has windows and sums of its own.
#include "krait/backends/cpu/isa/mamba3_head_grad.h"
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/scan_grad.h"
#include "krait/backends/cpu/workspace.h"

namespace krait::KRAIT_ISA {
namespace {

// Sequences that go together: enough heads for many cores, few enough tokens for their states to stay small.
constexpr int64_t kTasks = 64, kTokens = 16384;

struct Region {
  int64_t size = 0;  // floats
  int64_t take(int64_t n) {
    const int64_t here = size;
    size += padded(n);
    return here;
  }
};

// Sequences [s0, s1).
class Batch {
 public:
  Batch(const Exec& exec, const Mamba3ScanGradParams& p, int64_t s0, int64_t s1)
      : exec_(exec), p_(p), f_(p.f), at_(p.f), sum_(at_), part_(at_), s0_(s0), count_(s1 - s0) {
    Region all;
    masks_ = all.take(2 * at_.tokens * at_.L);
    shared_ = all.take(count_ * kWindow * at_.shared);
    parts_ = all.take(count_ * kWindow * f_.H * part_.size);
    sums_ = all.take(count_ * f_.H * sum_.size);
    norms_ = all.take(count_ * 2 * at_.Np);
    chunk_norms_ = all.take(count_ * kWindow * 2 * at_.Np);
    int64_t states = 0;
    for (int64_t i = 0; i < count_; ++i) states += windows(i);
    states_ = all.take(states * f_.H * at_.Np * at_.Pp);
    phases_ = all.take(states * f_.H * at_.Fp);
    base_ = static_cast<float*>(call_workspace(static_cast<size_t>(all.size) * sizeof(float)));
    mamba3_masks(at_, f_.R, base_ + masks_);
    clear(base_ + sums_, count_ * f_.H * sum_.size);
    clear(base_ + norms_, count_ * 2 * at_.Np);
  }

  void run() {
    int64_t most = 0;
    for (int64_t i = 0; i < count_; ++i) most = windows(i) > most ? windows(i) : most;
    for (int64_t w = 0; w + 1 < most; ++w) {
      share(w, 1);
      each_head(w, 1, [&](int64_t i, const Mamba3Window& window) {
        mamba3_window_forward(p_, at_, window, state(i, w + 1, window.h), phase(i, w + 1, window.h));
      });
    }
    for (int64_t w = most - 1; w >= 0; --w) {
      share(w, 0);
      each_head(w, 0, [&](int64_t i, const Mamba3Window& window) {
        mamba3_window_back(p_, at_, base_ + masks_, window, parts(i, window.h),
                           base_ + sums_ + (i * f_.H + window.h) * sum_.size);
      });
      each_chunk(w, 0, [&](int64_t i, int64_t c, int64_t t0, int64_t n) { sum_heads(i, c, t0, n); });
      sum_norms(w);
    }
    add_sums();
  }

 private:
  int64_t length(int64_t i) const { return f_.spans.offset[s0_ + i + 1] - f_.spans.offset[s0_ + i]; }
  int64_t chunks(int64_t i) const { return (length(i) + at_.tokens - 1) / at_.tokens; }
  int64_t windows(int64_t i) const { return (chunks(i) + kWindow - 1) / kWindow; }
  int64_t window_chunks(int64_t i, int64_t w) const {
    const int64_t left = chunks(i) - w * kWindow;
    return left < kWindow ? left : kWindow;
  }
  int64_t stored(int64_t i, int64_t w, int64_t h) const {
    int64_t before = 0;
    for (int64_t j = 0; j < i; ++j) before += windows(j);
    return (before + w) * f_.H + h;
  }
  float* state(int64_t i, int64_t w, int64_t h) const { return base_ + states_ + stored(i, w, h) * at_.Np * at_.Pp; }
  int32_t* phase(int64_t i, int64_t w, int64_t h) const {
    return reinterpret_cast<int32_t*>(base_ + phases_ + stored(i, w, h) * at_.Fp);
  }
  float* shared(int64_t i, int64_t c) const { return base_ + shared_ + (i * kWindow + c) * at_.shared; }
  float* parts(int64_t i, int64_t h) const { return base_ + parts_ + (i * f_.H + h) * kWindow * part_.size; }

  // Window w of the sequences that have `more` windows after it: body(i, window) for each head.
  template <class F>
  void each_head(int64_t w, int64_t more, F body) const {
    exec_.pool->parallel_for(count_ * f_.H, [&](int64_t task) {
      const int64_t i = task / f_.H, h = task % f_.H;
      if (w + more >= windows(i)) return;
      body(i, {s0_ + i, h, w * kWindow, window_chunks(i, w), shared(i, 0), state(i, w, h), phase(i, w, h)});
    });
  }

  // body(i, c, t0, n) for each chunk c of the window: tokens t0 … t0 + n − 1.
  template <class F>
  void each_chunk(int64_t w, int64_t more, F body) const {
    exec_.pool->parallel_for(count_ * kWindow, [&](int64_t task) {
      const int64_t i = task / kWindow, c = task % kWindow;
      if (w + more >= windows(i) || c >= window_chunks(i, w)) return;
      const int64_t t0 = f_.spans.offset[s0_ + i] + (w * kWindow + c) * at_.tokens;
      const int64_t left = f_.spans.offset[s0_ + i + 1] - t0;
      body(i, c, t0, left < at_.tokens ? left : at_.tokens);
    });
  }

  // What heads share.
  void share(int64_t w, int64_t more) const {
    each_chunk(w, more, [&](int64_t i, int64_t c, int64_t t0, int64_t n) {
      float* to = shared(i, c);
      norm_keys(f_.B, t0, n, to + at_.keys, to + at_.scales);
      norm_keys(f_.C, t0, n, to + at_.keys + f_.G * at_.tile, to + at_.scales + f_.G * at_.L);
      clear(to + at_.tanh, at_.tokens * at_.Fp);
      for (int64_t t = 0; t < n; ++t) {
        for_vectors(f_.F, [&](int64_t f, auto lanes) {
          store(to + at_.tanh + t * at_.Fp + f, tanh(load(f_.angle + (t0 + t) * f_.ld + f, lanes)), lanes);
        });
      }
      const int64_t end = f_.spans.offset[s0_ + i + 1];
      for (int64_t t = 0; t <= at_.tokens && t0 + t < end; ++t) {
        gates(t0 + t, to + at_.gates + t * Mamba3Chunks::kGates * f_.H);
      }
    });
  }

  void gates(int64_t t, float* to) const {
    const int64_t in = t * f_.ld;
    for_vectors(f_.H, [&](int64_t h, auto lanes) {
      const Vec v = load(f_.dd_A + in + h, lanes), trap = load(f_.trap + in + h, lanes), one = set1(1.0f);
      const Vec raw = add(load(f_.dd_dt + in + h, lanes), load(f_.dt_bias + h, lanes)), dt = softplus(raw);
      const Vec reciprocal = div(one, sub(one, min(v, zero())));
      const Vec f = f_.softplus_A ? softplus(v) : select_less(v, zero(), reciprocal, add(one, v));
      const Vec slope = f_.softplus_A ? sigmoid(v) : mul(reciprocal, reciprocal);
      const Vec floor = set1(f_.A_floor), A = sub(zero(), max(floor, f));
      const Vec all[Mamba3Chunks::kGates] = {dt,
                                             exp(mul(A, dt)),
                                             sigmoid(trap),
                                             sigmoid(sub(zero(), trap)),
                                             sigmoid(raw),
                                             A,
                                             select_less(floor, f, slope, zero())};
      for (int g = 0; g < Mamba3Chunks::kGates; ++g) store(to + g * f_.H + h, all[g], lanes);
    });
  }

  // Tiles [G, Np, L] of the normalised rows of n tokens, without the norm's weight; scales [G, L], 0 where no row is.
  void norm_keys(const float* x, int64_t t0, int64_t n, float* tiles, float* scales) const {
    auto* rows = static_cast<float*>(task_workspace(static_cast<size_t>(at_.tile) * sizeof(float)));
    for (int64_t g = 0; g < f_.G; ++g, tiles += at_.tile, scales += at_.L) {
      clear(rows, at_.tile);
      for (int64_t l = 0; l < n * f_.R; ++l) {
        const float* from = x + (t0 + l / f_.R) * f_.ld + (l % f_.R * f_.G + g) * f_.N;
        for_vectors(f_.N, [&](int64_t j, auto lanes) { store(rows + l * at_.Np + j, load(from + j, lanes), lanes); });
      }
      flip(rows, at_.Np, at_.L, f_.N, tiles, at_.L);
      for (int64_t l = 0; l < at_.L; l += kLanes) {
        Vec squares = zero();
        for (int64_t j = 0; j < f_.N; ++j) {
          const Vec v = load(tiles + j * at_.L + l);
          squares = fma(v, v, squares);
        }
        store(scales + l, rsqrt(add(div(squares, set1(static_cast<float>(f_.N))), set1(f_.eps))));
      }
      for (int64_t l = n * f_.R; l < at_.L; ++l) scales[l] = 0.0f;
      scale_rows(tiles, scales, f_.N, at_.L, tiles);
    }
  }

  // Chunk c: B, C and the angles from what the heads handed on; the norm weights' gradients of this chunk.
  void sum_heads(int64_t i, int64_t c, int64_t t0, int64_t n) const {
    float* norms = base_ + chunk_norms_ + (i * kWindow + c) * 2 * at_.Np;
    clear(norms, 2 * at_.Np);
    for (int64_t which = 0; which < 2; ++which) {
      const float* weight = which == 0 ? f_.B_norm : f_.C_norm;
      float* dx = which == 0 ? p_.dB : p_.dC;
      for (int64_t g = 0; g < f_.G; ++g) sum_keys(i, c, which, g, t0, n, weight, norms + which * at_.Np, dx);
    }
    for (int64_t t = 0; t < n; ++t) {
      const float* tanh = shared(i, c) + at_.tanh + t * at_.Fp;
      float* dangle = p_.dangle + (t0 + t) * p_.ldd;
      for_vectors(f_.F, [&](int64_t f, auto lanes) {
        Vec sum = zero();
        for (int64_t h = 0; h < f_.H; ++h) {
          sum = add(sum, load(parts(i, h) + c * part_.size + part_.angle + t * at_.Fp + f, lanes));
        }
        const Vec th = load(tanh + f, lanes);
        store(dangle + f, fma(sum, fnma(th, th, set1(1.0f)), load(dangle + f, lanes)), lanes);
      });
    }
  }

  void sum_keys(int64_t i, int64_t c, int64_t which, int64_t g, int64_t t0, int64_t n, const float* weight,
                float* dweight, float* dx) const {
    auto* tile = static_cast<float*>(task_workspace(static_cast<size_t>(2 * at_.tile) * sizeof(float)));
    float* rows = tile + at_.tile;
    const float* unit = shared(i, c) + at_.keys + (which * f_.G + g) * at_.tile;
    const float* scales = shared(i, c) + at_.scales + (which * f_.G + g) * at_.L;
    const int64_t per_group = f_.H / f_.G;
    for (int64_t at = 0; at < f_.N * at_.L; at += kLanes) {
      Vec sum = zero();
      for (int64_t h = g * per_group; h < (g + 1) * per_group; ++h) {
        sum = add(sum, load(parts(i, h) + c * part_.size + which * at_.tile + at));
      }
      store(tile + at, sum);
    }
    for (int64_t j = 0; j < f_.N; ++j) {
      Vec s = zero();
      for (int64_t l = 0; l < at_.L; l += kLanes) s = fma(load(tile + j * at_.L + l), load(unit + j * at_.L + l), s);
      dweight[j] += sum(s);
    }
    for (int64_t l = 0; l < at_.L; l += kLanes) {
      Vec mean = zero();
      for (int64_t j = 0; j < f_.N; ++j) {
        float* at = tile + j * at_.L + l;
        const Vec d = mul(load(at), broadcast(weight + j));
        mean = fma(d, load(unit + j * at_.L + l), mean);
        store(at, d);
      }
      mean = div(mean, set1(static_cast<float>(f_.N)));
      for (int64_t j = 0; j < f_.N; ++j) {
        float* at = tile + j * at_.L + l;
        store(at, mul(load(scales + l), fnma(load(unit + j * at_.L + l), mean, load(at))));
      }
    }
    flip(tile, at_.L, f_.N, at_.L, rows, at_.Np);
    for (int64_t l = 0; l < n * f_.R; ++l) {
      float* to = dx + (t0 + l / f_.R) * p_.ldd + (l % f_.R * f_.G + g) * f_.N;
      for_vectors(f_.N, [&](int64_t j, auto lanes) {
        store(to + j, add(load(to + j, lanes), load(rows + l * at_.Np + j, lanes)), lanes);
      });
    }
  }

  void sum_norms(int64_t w) const {
    for (int64_t i = 0; i < count_; ++i) {
      if (w >= windows(i)) continue;
      for (int64_t c = window_chunks(i, w) - 1; c >= 0; --c) {
        add_row(base_ + norms_ + i * 2 * at_.Np, base_ + chunk_norms_ + (i * kWindow + c) * 2 * at_.Np, 2 * at_.Np);
      }
    }
  }

  // To the parameters, a sequence after the other.
  void add_sums() const {
    exec_.pool->parallel_for(f_.H, [&](int64_t h) {
      for (int64_t i = 0; i < count_; ++i) {
        if (length(i) > 0) add_head(h, base_ + sums_ + (i * f_.H + h) * sum_.size);
      }
    });
    for (int64_t i = 0; i < count_; ++i) {
      if (length(i) == 0) continue;
      const float* norms = base_ + norms_ + i * 2 * at_.Np;
      if (p_.dB_norm != nullptr) add_row(p_.dB_norm, norms, f_.N);
      if (p_.dC_norm != nullptr) add_row(p_.dC_norm, norms + at_.Np, f_.N);
    }
  }

  void add_head(int64_t h, const float* sums) const {
    if (p_.ddt_bias != nullptr) p_.ddt_bias[h] += sums[sum_.dt_bias];
    if (p_.dD != nullptr) p_.dD[h] += sum(load(sums + sum_.D));
    if (p_.dB_bias != nullptr) add_bias(h, sums + sum_.B_bias, p_.dB_bias);
    if (p_.dC_bias != nullptr) add_bias(h, sums + sum_.C_bias, p_.dC_bias);
    for (int64_t r = 0; r < f_.R; ++r) {
      const int64_t to = (h * f_.R + r) * f_.P, from = r * at_.Pp;
      if (p_.dmimo_x != nullptr) add_row(p_.dmimo_x + to, sums + sum_.mimo_x + from, f_.P);
      if (p_.dmimo_z != nullptr) add_row(p_.dmimo_z + to, sums + sum_.mimo_z + from, f_.P);
      if (p_.dmimo_o != nullptr) add_row(p_.dmimo_o + to, sums + sum_.mimo_o + from, f_.P);
    }
    if (p_.dout_norm != nullptr) add_row(p_.dout_norm + h * f_.P, sums + sum_.out_norm, f_.P);
  }

  // dbias [R, N] of head h += tile [N, L], summed over the lanes of each rank
  void add_bias(int64_t h, const float* tile, float* dbias) const {
    for (int64_t r = 0; r < f_.R; ++r) {
      for (int64_t j = 0; j < f_.N; ++j) {
        float sum = 0.0f;
        for (int64_t l = r; l < at_.tokens * f_.R; l += f_.R) sum += tile[j * at_.L + l];
        dbias[(h * f_.R + r) * f_.N + j] += sum;
      }
    }
  }

  const Exec& exec_;
  const Mamba3ScanGradParams& p_;
  const Mamba3ScanParams& f_;
  const Mamba3Chunks at_;
  const Mamba3Sums sum_;
  const Mamba3Parts part_;
  const int64_t s0_, count_;
  float* base_;
  // Of the workspace, in floats: masks; [count, kWindow, …] what heads share; [count, H, kWindow, …] what they hand on;
  // [count, H, …] sums of parameters; [count, 2, Np] of the norms' weights; that of chunks; states before windows.
  int64_t masks_, shared_, parts_, sums_, norms_, chunk_norms_, states_, phases_;
};

}  // namespace

void mamba3_scan_grad(const Exec& exec, const Mamba3ScanGradParams& p) {
  const SpanView& spans = p.f.spans;
  for (int64_t s = 0; s < spans.n_seqs;) {
    int64_t end = s + 1;
    while (end < spans.n_seqs && (end - s) * p.f.H < kTasks && spans.offset[end + 1] - spans.offset[s] <= kTokens)
      ++end;
    Batch(exec, p, s, end).run();
    s = end;
  }
}

}  // namespace krait::KRAIT_ISA
