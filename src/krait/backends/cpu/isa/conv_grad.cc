// Gradient of the causal convolution: tasks of a block of channels, sequences and tokens in order. An input's gradient
// is complete W−1 tokens later: the sums that are not yet lie in a window that slides along with the inputs.
#include <string.h>

#include "krait/backends/cpu/isa/integers.h"
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/vec.h"
#include "krait/backends/cpu/workspace.h"

namespace krait::scalar {
void causal_conv_grad(const Exec& exec, const CausalConvGradParams& p);
}

namespace krait::KRAIT_ISA {
namespace {

constexpr int64_t kBlock = 64;  // channels of a task
constexpr int64_t kTile = 16;   // tokens of a tile: their channels of a task stay in L1

// What a tile hands to the next.
template <int W>
struct Carry {
  float pending[W][kBlock];  // gradients of the inputs W−1, …, 1 tokens ago; the last row is not used
  float dw[W][kBlock];
  float db[kBlock];
};

template <int W>
struct Walk {
  const CausalConvGradParams& p;
  int64_t s, c0;  // sequence, first channel of the task
  Carry<W>& carry;

  int64_t first() const { return p.f.spans.offset[s]; }
  int64_t length() const { return p.f.spans.offset[s + 1] - first(); }
  // Row of inputs at time t >= −(W−1): before 0 it lies in the state before.
  const float* input(int64_t t) const {
    return t >= 0 ? p.f.x + (first() + t) * p.f.ldx : p.before + (s * (W - 1) + t + W - 1) * p.f.C;
  }
  float* dstate(int64_t i) const { return p.dstate + p.f.spans.slot[s] * p.dstate_stride + i * p.f.C; }

  // Adds the complete gradient of the input at time t, or makes it that of the state before.
  template <class Lanes>
  [[gnu::always_inline]] inline void put(int64_t t, int64_t c, Vec dx, Lanes lanes) const {
    if (t >= 0) {
      float* to = p.dx + (first() + t) * p.lddx + c;
      store(to, add(load(to, lanes), dx), lanes);
    } else {
      store(dstate(t + W - 1) + c, dx, lanes);
    }
  }

  // Tokens [t0, t0 + n) of the channels from c0 + o on.
  template <class Lanes>
  [[gnu::flatten]] void tile(int64_t t0, int64_t n, int64_t o, Lanes lanes) const {
    const int64_t c = c0 + o;
    Vec w[W], x[W], dw[W], pending[W];
    KRAIT_UNROLL for (int k = 0; k < W; ++k) {
      w[k] = load(p.f.w + k * p.f.C + c, lanes);
      dw[k] = load(carry.dw[k] + o, lanes);
      if (k > 0) x[k] = load(input(t0 - W + k) + c, lanes);
      if (k < W - 1) pending[k] = load(carry.pending[k] + o, lanes);
    }
    const Vec b = p.f.b != nullptr ? load(p.f.b + c, lanes) : zero();
    Vec db = load(carry.db + o, lanes);
    for (int64_t t = t0; t < t0 + n; ++t) {
      KRAIT_UNROLL for (int k = 0; k < W - 1; ++k) x[k] = x[k + 1];
      x[W - 1] = load(p.f.x + (first() + t) * p.f.ldx + c, lanes);
      Vec du = load(p.dy + (first() + t) * p.lddy + c, lanes);
      if (p.f.silu) {
        Vec u = b;
        KRAIT_UNROLL for (int k = 0; k < W; ++k) u = fma(w[k], x[k], u);
        du = mul(du, silu_slope(u, sigmoid(u)));
      }
      db = add(db, du);
      KRAIT_UNROLL for (int k = 0; k < W; ++k) dw[k] = fma(du, x[k], dw[k]);
      pending[W - 1] = zero();
      KRAIT_UNROLL for (int k = 0; k < W; ++k) pending[k] = fma(w[k], du, pending[k]);
      put(t - (W - 1), c, pending[0], lanes);
      KRAIT_UNROLL for (int k = 0; k < W - 1; ++k) pending[k] = pending[k + 1];
    }
    KRAIT_UNROLL for (int k = 0; k < W; ++k) {
      store(carry.dw[k] + o, dw[k], lanes);
      if (k < W - 1) store(carry.pending[k] + o, pending[k], lanes);
    }
    store(carry.db + o, db, lanes);
  }

  // Channels [c0, c0 + n).
  void sequence(int64_t n) const {
    alignas(64) float after[W][kBlock];  // gradient of the final state
    for (int i = 0; i < W - 1; ++i) memcpy(after[i], dstate(i) + c0, static_cast<size_t>(n) * 4);
    memset(&carry, 0, sizeof(carry));
    for (int64_t t = 0; t < length(); t += kTile) {
      for_vectors(n, [&](int64_t o, auto lanes) { tile(t, min(kTile, length() - t), o, lanes); });
    }
    for_vectors(n, [&](int64_t o, auto lanes) {
      for (int i = 0; i < W - 1; ++i) {
        const Vec dx = add(load(carry.pending[i] + o, lanes), load(after[i] + o, lanes));
        put(length() - (W - 1) + i, c0 + o, dx, lanes);
      }
      for (int k = 0; k < W && p.dw != nullptr; ++k) {
        float* dw = p.dw + k * p.f.C + c0 + o;
        store(dw, add(load(dw, lanes), load(carry.dw[k] + o, lanes)), lanes);
      }
      if (p.db == nullptr) return;
      store(p.db + c0 + o, add(load(p.db + c0 + o, lanes), load(carry.db + o, lanes)), lanes);
    });
  }
};

template <int W>
void run(const Exec& exec, const CausalConvGradParams& p) {
  exec.pool->parallel_for(ceil_div(p.f.C, kBlock), [&](int64_t task) {
    Carry<W> carry;
    for (int64_t s = 0; s < p.f.spans.n_seqs; ++s) {
      Walk<W>{p, s, task * kBlock, carry}.sequence(min(kBlock, p.f.C - task * kBlock));
    }
  });
}

}  // namespace

void causal_conv_grad(const Exec& exec, const CausalConvGradParams& p) {
  if (p.f.W == 4) return run<4>(exec, p);  // the published models' widths
  if (p.f.W == 3) return run<3>(exec, p);
  if (p.f.W == 2) return run<2>(exec, p);
  scalar::causal_conv_grad(exec, p);
}

}  // namespace krait::KRAIT_ISA
