#include "krait/backends/cpu/kernel_testing.h"
#include "krait/kernels/reference/conv.h"

namespace krait {
namespace {

using namespace testing_util;

// Arrays of the gradient's parameters, of type Real.
template <class Real>
struct Arrays {
  std::vector<Real> x, w, b, before, dy, dx, dw, db, dstate;
};

struct Problem {
  Problem(int64_t channels, int64_t width, bool with_bias, bool with_silu, const std::vector<int64_t>& lengths)
      : C(channels), W(width), bias(with_bias), silu(with_silu), spans(packed(lengths)) {
    const int64_t T = spans.n_tokens();
    data = {normals(T * ldx(), 1),
            normals(W * C, 2),
            normals(C, 3),
            normals(spans.n_seqs() * (W - 1) * C, 4),
            normals(T * C, 5),
            normals(T * ldx(), 6),
            normals(W * C, 7),
            normals(C, 8),
            normals(8 * state_stride(), 9)};
  }
  int64_t ldx() const { return C + 3; }
  int64_t state_stride() const { return (W - 1) * C + 5; }
  template <class Real>
  CausalConvGradParamsOf<Real> params(Arrays<Real>& a) const {
    CausalConvGradParamsOf<Real> p{};
    p.f.spans = view(spans), p.f.x = a.x.data(), p.f.ldx = ldx(), p.f.w = a.w.data();
    p.f.b = bias ? a.b.data() : nullptr;
    p.f.silu = silu, p.f.C = C, p.f.W = W;
    p.before = a.before.data(), p.dy = a.dy.data(), p.lddy = C, p.dx = a.dx.data(), p.lddx = ldx();
    p.dw = a.dw.data(), p.db = bias ? a.db.data() : nullptr;
    p.dstate = a.dstate.data(), p.dstate_stride = state_stride();
    return p;
  }
  int64_t C, W;
  bool bias, silu;
  SeqSpans spans;
  Arrays<float> data;
};

class ConvGrad : public testing::TestWithParam<const KernelSet*> {
 protected:
  ThreadPool pool_{2};
};

// Largest magnitudes along a channel, from which its bounds follow.
struct Channel {
  double du = 0, du_error = 0, sum_w = 0, sum_x = 0;
};

Channel measure(const Problem& q, const CausalConvGradParams& p, int64_t c) {
  Channel m;
  CausalConvParamsOf<float> f = p.f;
  double largest = 0;
  for (int64_t k = 0; k < q.W; ++k) m.sum_w += std::fabs(p.f.w[k * q.C + c]);
  for (int64_t i = 0; i < q.spans.n_seqs() * (q.W - 1); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(p.before[i * q.C + c])));
    m.sum_x += std::fabs(p.before[i * q.C + c]);
  }
  for (int64_t t = 0; t < q.spans.n_tokens(); ++t) {
    largest = std::max(largest, std::fabs(static_cast<double>(f.x[t * f.ldx + c])));
    m.sum_x += std::fabs(f.x[t * f.ldx + c]);
    m.du = std::max(m.du, 1.1 * std::fabs(static_cast<double>(p.dy[t * p.lddy + c])));  // |silu'| < 1.1
  }
  if (q.silu) {  // |silu''| <= 1/2; the slope's own bound grows with |u|
    const double u = m.sum_w * largest + (q.bias ? std::fabs(p.f.b[c]) : 0);
    m.du_error = m.du * (0.5 * tolerance::conv(q.W, u) + tolerance::silu_slope(u) + 2 * tolerance::kF32Unit);
  }
  return m;
}

void expect_matches(const KernelSet& set, ThreadPool& pool, const Problem& q) {
  SCOPED_TRACE(std::string(set.name) + " C " + std::to_string(q.C) + " W " + std::to_string(q.W));
  Arrays<float> got = q.data;
  Arrays<double> want{widened(got.x),  widened(got.w),  widened(got.b),  widened(got.before), widened(got.dy),
                      widened(got.dx), widened(got.dw), widened(got.db), widened(got.dstate)};
  const CausalConvGradParams p = q.params(got);
  const std::vector<float> dstate_after = got.dstate;
  set.causal_conv_grad({&pool}, p);
  const auto o = q.params(want);
  const double u = tolerance::kF32Unit;
  const auto near = [&](const std::vector<float>& a, const std::vector<double>& b, int64_t i, double bound,
                        const char* name) {
    const auto at = static_cast<size_t>(i);
    expect_near(a[at], b[at], bound + 2 * u * (std::fabs(b[at]) + 5), std::string(name) + " " + std::to_string(i));
  };
  for (int64_t c = 0; c < q.C; ++c) {
    for (int64_t s = 0; s < q.spans.n_seqs(); ++s) reference::causal_conv_grad_channel(o, s, c);
    const Channel m = measure(q, p, c);
    const double terms = static_cast<double>(q.spans.n_tokens() + q.spans.n_seqs() + 2);
    const double dx = m.sum_w * (m.du_error + static_cast<double>(q.W + 2) * u * m.du);
    for (int64_t t = 0; t < q.spans.n_tokens(); ++t) near(got.dx, want.dx, t * q.ldx() + c, dx, "dx");
    for (int64_t k = 0; k < q.W; ++k) {
      near(got.dw, want.dw, k * q.C + c, m.sum_x * (m.du_error + terms * u * m.du), "dw");
    }
    if (q.bias) near(got.db, want.db, c, terms * (m.du_error + terms * u * m.du), "db");
    for (int64_t i = 0; i < 8 * (q.W - 1); ++i) {
      near(got.dstate, want.dstate, i / std::max<int64_t>(q.W - 1, 1) * q.state_stride() + i % (q.W - 1) * q.C + c, dx,
           "dstate");
    }
  }
  if (!q.bias) {
    EXPECT_EQ(got.db, q.data.db);
  }
  for (int64_t t = 0; t < q.spans.n_tokens(); ++t) {  // what lies between the rows
    const auto gap = static_cast<size_t>(t * q.ldx() + q.C);
    EXPECT_TRUE(same_bits(&got.dx[gap], &q.data.dx[gap], 3));
  }
}

// Traps A6, A8: sequences shorter and longer than the window, gradients of both ends' states.
TEST_P(ConvGrad, TrapA8_MatchesReferenceAtAnySize) {
  for (const int64_t C : {1, 7, 16, 67, 150}) {
    for (int64_t W = 1; W <= 6; ++W) {
      expect_matches(*GetParam(), pool_, Problem(C, W, W % 2 == 0, C != 7, {3, 0, 1, 20, 2, 5}));
    }
  }
}

TEST_P(ConvGrad, TrapA6_PackedEqualsSeparateAndThreadsDoNotShow) {
  for (const int64_t W : {2, 3, 4, 5}) {
    const Problem q(130, W, true, true, {0, 1, 40, 2, 0, 17, 4});
    Arrays<float> alone = q.data;
    for (int64_t s = 0; s < q.spans.n_seqs(); ++s) {
      const auto i = static_cast<size_t>(s);
      const SeqSpans one = SeqSpans::one(q.spans.length(s), q.spans.slot[i]);
      CausalConvGradParams p = q.params(alone);
      const int64_t first = q.spans.offset[i];
      p.f.spans = view(one), p.f.x += first * p.f.ldx, p.dy += first * p.lddy, p.dx += first * p.lddx;
      p.before += s * (W - 1) * q.C;
      GetParam()->causal_conv_grad({&pool_}, p);
    }
    for (const int threads : {1, 2, 3}) {
      ThreadPool pool(threads);
      Arrays<float> got = q.data;
      GetParam()->causal_conv_grad({&pool}, q.params(got));
      EXPECT_EQ(got.dx, alone.dx);
      EXPECT_EQ(got.dw, alone.dw);
      EXPECT_EQ(got.db, alone.db);
      EXPECT_EQ(got.dstate, alone.dstate);
    }
  }
}

TEST_P(ConvGrad, ParametersMayBeFrozen) {
  const Problem q(40, 4, true, true, {9});
  Arrays<float> all = q.data, some = q.data;
  GetParam()->causal_conv_grad({&pool_}, q.params(all));
  CausalConvGradParams p = q.params(some);
  p.dw = p.db = nullptr;
  GetParam()->causal_conv_grad({&pool_}, p);
  EXPECT_EQ(some.dx, all.dx);
  EXPECT_EQ(some.dstate, all.dstate);
}

INSTANTIATE_TEST_SUITE_P(Kernels, ConvGrad, testing::ValuesIn(cpu_kernel_sets()), set_name);

}  // namespace
}  // namespace krait
