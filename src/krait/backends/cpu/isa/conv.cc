// Causal depthwise convolution: tasks of (sequence, block of channels), tokens in time order.
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/tasks.h"
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {
namespace {

constexpr int64_t kBlock = 256;  // channels of a task: W rows of them stay in L1

// Row of inputs of sequence s at time t of this call, t >= −(W−1): before 0 it lies in the state.
KRAIT_INLINE const float* input(const CausalConvParams& p, int64_t s, int64_t t) {
  if (t >= 0) return p.x + (p.spans.offset[s] + t) * p.ldx;
  return p.state + p.spans.slot[s] * p.state_stride + (t + p.W - 1) * p.C;
}

// Channels [c0, c0 + n) of token t. kW = 0: any width.
template <int kW>
KRAIT_INLINE void convolve(const CausalConvParams& p, int64_t s, int64_t t, int64_t c0, int64_t n) {
  const float* rows[kW == 0 ? 1 : kW];
  KRAIT_UNROLL for (int k = 0; k < kW; ++k) rows[k] = input(p, s, t - (kW - 1) + k) + c0;
  float* y = p.y + (p.spans.offset[s] + t) * p.ldy + c0;
  for_vectors(n, [&](int64_t c, auto lanes) {
    Vec sum = p.b != nullptr ? load(p.b + c0 + c, lanes) : zero();
    if constexpr (kW != 0) {
      KRAIT_UNROLL for (int k = 0; k < kW; ++k) {
        sum = fma(load(p.w + k * p.C + c0 + c, lanes), load(rows[k] + c, lanes), sum);
      }
    } else {
      for (int64_t k = 0; k < p.W; ++k) {
        sum = fma(load(p.w + k * p.C + c0 + c, lanes), load(input(p, s, t - (p.W - 1) + k) + c0 + c, lanes), sum);
      }
    }
    store(y + c, p.silu ? silu(sum) : sum, lanes);
  });
}

void run_task(const CausalConvParams& p, int64_t s, int64_t c0, int64_t n) {
  const int64_t length = p.spans.offset[s + 1] - p.spans.offset[s];
  if (length == 0) return;
  for (int64_t t = 0; t < length; ++t) {
    if (p.W == 4) {
      convolve<4>(p, s, t, c0, n);
    } else {
      convolve<0>(p, s, t, c0, n);
    }
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
