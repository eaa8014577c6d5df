// Causal depthwise convolution: tasks of (sequence, block of channels), tokens in time order.
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/tasks.h"
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {
namespace {

constexpr int64_t kBlock = 256;  // channels of a task
constexpr int64_t kTile = 16;    // tokens of a tile: their channels of a task stay in L1
#ifdef __AVX512F__
constexpr int kVecs = 2;  // vectors that walk together: taps and last inputs of each stay in registers
#else
constexpr int kVecs = 1;
#endif

// Row of inputs of sequence s at time t of this call, t >= −(W−1): before 0 it lies in the state.
KRAIT_INLINE const float* input(const CausalConvParams& p, int64_t s, int64_t t) {
  if (t >= 0) return p.x + (p.spans.offset[s] + t) * p.ldx;
  return p.state + p.spans.slot[s] * p.state_stride + (t + p.W - 1) * p.C;
}

// Channels [c0, c0 + n) of token t, any width.
void convolve(const CausalConvParams& p, int64_t s, int64_t t, int64_t c0, int64_t n) {
  float* y = p.y + (p.spans.offset[s] + t) * p.ldy + c0;
  for_vectors(n, [&](int64_t c, auto lanes) {
    Vec sum = p.b != nullptr ? load(p.b + c0 + c, lanes) : zero();
    for (int64_t k = 0; k < p.W; ++k) {
      sum = fma(load(p.w + k * p.C + c0 + c, lanes), load(input(p, s, t - (p.W - 1) + k) + c0 + c, lanes), sum);
    }
    store(y + c, p.silu ? silu(sum) : sum, lanes);
  });
}

// Width 4, the published models': kV vectors of channels from c on, of which the last may be partial, walk n tokens.
template <int kV, class Last>
[[gnu::flatten]] void walk4(const CausalConvParams& p, int64_t s, int64_t t0, int64_t n, int64_t c, Last last) {
  Vec w[4][kV], b[kV], x[4][kV];
  KRAIT_UNROLL for (int v = 0; v < kV; ++v) {
    const int64_t at = c + v * kLanes;
    b[v] = p.b != nullptr ? load(p.b + at, last) : zero();
    KRAIT_UNROLL for (int k = 0; k < 4; ++k) w[k][v] = load(p.w + k * p.C + at, last);
    KRAIT_UNROLL for (int k = 1; k < 4; ++k) x[k][v] = load(input(p, s, t0 - 4 + k) + at, last);
  }
  const int64_t ldx = p.ldx, ldy = p.ldy;
  const bool plus_silu = p.silu;
  const float* in = p.x + (p.spans.offset[s] + t0) * ldx + c;
  float* out = p.y + (p.spans.offset[s] + t0) * ldy + c;
  for (int64_t i = 0; i < n; ++i, in += ldx, out += ldy) {
    KRAIT_UNROLL for (int v = 0; v < kV; ++v) {
      KRAIT_UNROLL for (int k = 0; k < 3; ++k) x[k][v] = x[k + 1][v];
      x[3][v] = load(in + v * kLanes, last);
      Vec sum = b[v];
      KRAIT_UNROLL for (int k = 0; k < 4; ++k) sum = fma(w[k][v], x[k][v], sum);
      store(out + v * kLanes, plus_silu ? silu(sum) : sum, last);
    }
  }
}

void walk4_all(const CausalConvParams& p, int64_t s, int64_t t0, int64_t n, int64_t c0, int64_t width) {
  int64_t c = 0;
  for (; c + kVecs * kLanes <= width; c += kVecs * kLanes) walk4<kVecs>(p, s, t0, n, c0 + c, Whole{});
  for_vectors(width - c, [&](int64_t o, auto lanes) { walk4<1>(p, s, t0, n, c0 + c + o, lanes); });
}

void run_task(const CausalConvParams& p, int64_t s, int64_t c0, int64_t n) {
  const int64_t length = p.spans.offset[s + 1] - p.spans.offset[s];
  if (length == 0) return;
  if (p.W == 4) {
    for (int64_t t = 0; t < length; t += kTile) walk4_all(p, s, t, length - t < kTile ? length - t : kTile, c0, n);
  } else {
    for (int64_t t = 0; t < length; ++t) convolve(p, s, t, c0, n);
  }
  float* state = p.state + p.spans.slot[s] * p.state_stride + c0;
  for (int64_t i = 0; i < p.W - 1; ++i) {  // ascending: a row that moves within the state moves down
    const float* from = input(p, s, length - (p.W - 1) + i) + c0;
    for_vectors(n, [&](int64_t c, auto lanes) { store(state + i * p.C + c, load(from + c, lanes), lanes); });
  }
}

}  // namespace

void causal_conv(const Exec& exec, const CausalConvParams& p) {
  const int64_t seqs = p.spans.n_seqs, blocks = (p.C + kBlock - 1) / kBlock;
  if (seqs == 0) return;
  const int64_t cost = p.spans.n_tokens() / seqs * (kBlock / kLanes) * (25 + 3 * p.W);
  parallel_items(exec, seqs * blocks, cost, [&](int64_t i) {
    const int64_t c0 = i % blocks * kBlock;
    run_task(p, i / blocks, c0, p.C - c0 < kBlock ? p.C - c0 : kBlock);
  });
}

}  // namespace krait::KRAIT_ISA
