#include "krait/core/seq_spans.h"
#include "krait/kernels/reference/complex_step.h"
#include "krait/kernels/reference/conv.h"

namespace krait::reference {
namespace {

SeqSpans packed(const std::vector<int64_t>& lengths) {
  SeqSpans spans;
  for (size_t i = 0; i < lengths.size(); ++i) spans.add(lengths[i], static_cast<int32_t>((i * 5 + 3) % 8));
  return spans;
}

// All inputs of a convolution; the loss contracts its outputs and its final states.
struct Problem {
  Problem(int64_t channels, int64_t width, bool with_bias, bool with_silu, std::vector<int64_t> lengths)
      : C(channels),
        W(width),
        bias(with_bias),
        silu(with_silu),
        spans(packed(lengths)),
        stride((W - 1) * C + 1),
        ldx(C + 2),
        x(spans.n_tokens() * ldx, 1),
        w(W * C, 2),
        b(C, 3),
        before(spans.n_seqs() * (W - 1) * C, 4),
        dy(StepInput::normals(spans.n_tokens() * C, 5)),
        dstate(StepInput::normals(8 * stride, 6)) {}

  SpanView view() const { return {spans.offset.data(), spans.slot.data(), spans.n_seqs()}; }

  void run_gradient() {
    CausalConvGradParamsOf<double> g{};
    g.f.spans = view(), g.f.x = x.value.data(), g.f.ldx = ldx, g.f.w = w.value.data();
    g.f.b = bias ? b.value.data() : nullptr;
    g.f.silu = silu, g.f.C = C, g.f.W = W;
    g.before = before.value.data();
    g.dy = dy.data(), g.lddy = C;
    g.dx = x.gradient.data(), g.lddx = ldx;
    g.dw = w.gradient.data();
    if (bias) g.db = b.gradient.data();
    std::vector<double> state = dstate;
    g.dstate = state.data(), g.dstate_stride = stride;
    for (int64_t s = 0; s < spans.n_seqs(); ++s) {
      for (int64_t c = 0; c < C; ++c) causal_conv_grad_channel(g, s, c);
      const auto from = state.begin() + spans.slot[static_cast<size_t>(s)] * stride;
      std::copy_n(from, (W - 1) * C, before.gradient.begin() + s * (W - 1) * C);
    }
  }

  Complex loss() const {
    std::vector<Complex> state(dstate.size());
    CausalConvParamsOf<Complex> p{};
    p.spans = view(), p.x = x.complex.data(), p.ldx = ldx, p.w = w.complex.data();
    p.b = bias ? b.complex.data() : nullptr;
    p.silu = silu, p.state = state.data(), p.state_stride = stride, p.C = C, p.W = W;
    Complex sum = 0;
    for (int64_t s = 0; s < spans.n_seqs(); ++s) {
      const int64_t slot = spans.slot[static_cast<size_t>(s)] * stride;
      std::copy_n(before.complex.begin() + s * (W - 1) * C, (W - 1) * C, state.begin() + slot);
      for (int64_t c = 0; c < C; ++c) {
        for (int64_t t = 0; t < spans.length(s); ++t) {
          const int64_t at = (spans.offset[static_cast<size_t>(s)] + t) * C + c;
          sum += dy[static_cast<size_t>(at)] * causal_conv_at<Complex>(p, s, t, c);
        }
        update_conv_state(p, s, c);
      }
      for (int64_t i = 0; i < (W - 1) * C; ++i) {
        sum += dstate[static_cast<size_t>(slot + i)] * state[static_cast<size_t>(slot + i)];
      }
    }
    return sum;
  }

  int64_t C, W;
  bool bias, silu;
  SeqSpans spans;
  int64_t stride, ldx;
  StepInput x, w, b, before;
  std::vector<double> dy, dstate;
};

// Traps A6, A8: several sequences, shorter and longer than the window, with the gradients of both ends' states.
TEST(ConvGrad, TrapA8_ComplexStep) {
  for (int64_t W = 1; W <= 5; ++W) {
    for (const bool silu : {false, true}) {
      for (const bool bias : {false, true}) {
        SCOPED_TRACE("W " + std::to_string(W) + " silu " + std::to_string(silu));
        Problem q(3, W, bias, silu, {0, 1, 2, 5, 3, 0, 4});
        q.run_gradient();
        const auto f = [&] { return q.loss(); };
        expect_gradient("dx", q.x, f);
        expect_gradient("dw", q.w, f);
        if (bias) expect_gradient("db", q.b, f);
        expect_gradient("dstate", q.before, f, false);
      }
    }
  }
}

}  // namespace
}  // namespace krait::reference
