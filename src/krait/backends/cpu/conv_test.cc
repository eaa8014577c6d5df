#include "krait/kernels/reference/conv.h"
#include "krait/backends/cpu/kernel_testing.h"

namespace krait {
namespace {

using namespace testing_util;

// Inputs of T packed tokens, and parameters.
struct Problem {
  Problem(int64_t channels, int64_t width, bool with_bias, bool with_silu, int64_t T, uint64_t seed)
      : C(channels),
        W(width),
        silu(with_silu),
        x(Rows::random(T, C, 3, seed)),
        w(normals(W * C, seed + 1)),
        b(with_bias ? normals(C, seed + 2) : std::vector<float>()) {}
  // Tokens from t0 on; y [·, ldy] is the row of token t0.
  CausalConvParams params(const SeqSpans& spans, int64_t t0, float* y, int64_t ldy, std::vector<float>& state) const {
    return {view(spans),  x.row(t0),      x.ld, w.data(), b.empty() ? nullptr : b.data(), silu, y, ldy,
            state.data(), state_stride(), C,    W};
  }
  int64_t state_stride() const { return (W - 1) * C + 5; }
  std::vector<float> states() const { return normals(8 * state_stride(), 9); }
  int64_t C, W;
  bool silu;
  Rows x;
  std::vector<float> w, b;
};

void expect_matches(const KernelSet& set, ThreadPool& pool, const Problem& q, const SeqSpans& spans) {
  SCOPED_TRACE(std::string(set.name) + " C " + std::to_string(q.C) + " W " + std::to_string(q.W));
  Rows y(spans.n_tokens(), q.C, 4);
  std::vector<float> before = q.states(), state = before;
  set.causal_conv({&pool}, q.params(spans, 0, y.row(0), y.ld, state));
  y.expect_gaps_untouched();
  const CausalConvParams p = q.params(spans, 0, nullptr, 0, before);
  for (int64_t s = 0; s < spans.n_seqs(); ++s) {
    for (int64_t c = 0; c < q.C; ++c) {
      for (int64_t t = 0; t < spans.length(s); ++t) {
        double sum = q.b.empty() ? 0 : std::fabs(q.b[static_cast<size_t>(c)]);
        for (int64_t k = 0; k < q.W; ++k) {
          sum += std::fabs(static_cast<double>(p.w[k * q.C + c]) * reference::conv_input(p, s, t - (q.W - 1) + k, c));
        }
        const double want = reference::causal_conv_at<double>(p, s, t, c);
        double bound = tolerance::conv(q.W, sum);
        if (q.silu) bound = 1.1 * bound + tolerance::silu(std::fabs(want));  // |silu'| < 1.1
        expect_near(y.row(spans.offset[static_cast<size_t>(s)] + t)[c], want, bound,
                    "sequence " + std::to_string(s) + " token " + std::to_string(t) + " channel " + std::to_string(c));
      }
    }
  }
  for (int64_t s = 0; s < spans.n_seqs(); ++s) {
    for (int64_t c = 0; c < q.C; ++c) reference::update_conv_state(p, s, c);
  }
  EXPECT_EQ(state, before);
}

class CausalConv : public testing::TestWithParam<const KernelSet*> {
 protected:
  std::vector<float> run(const Problem& q, const std::vector<int64_t>& lengths, std::vector<float>& state) {
    std::vector<float> y;
    int64_t t0 = 0;
    for (const int64_t n : lengths) {
      const SeqSpans spans = SeqSpans::one(n, 2);
      y.resize(static_cast<size_t>((t0 + n) * q.C));
      GetParam()->causal_conv({&pool_}, q.params(spans, t0, y.data() + t0 * q.C, q.C, state));
      t0 += n;
    }
    return y;
  }
  ThreadPool pool_{2};
};

TEST_P(CausalConv, TrapB2_MatchesReferenceAtAnySize) {
  for (const int64_t C : {1, 7, 16, 67, 300}) {
    for (int64_t W = 1; W <= 8; ++W) {
      expect_matches(*GetParam(), pool_, Problem(C, W, W % 2 == 0, W % 3 != 0, 21, 1), packed({3, 0, 1, 15, 2}));
    }
  }
}

// A prompt shorter than the window shifts the old columns of the state instead of dropping them.
TEST_P(CausalConv, TrapA10_ShortPrompts) {
  for (const int64_t W : {3, 4, 6}) {
    for (int64_t n = 0; n <= W; ++n) {
      expect_matches(*GetParam(), pool_, Problem(20, W, true, true, n, 2), packed({n}));
    }
  }
}

TEST_P(CausalConv, TrapA2_SplitAtEveryPosition) {
  for (const int64_t W : {1, 2, 4, 5}) {
    const Problem q(41, W, true, true, 20, 3);
    std::vector<float> whole_state = q.states();
    const std::vector<float> whole = run(q, {20}, whole_state);
    for (int64_t at = 0; at <= 20; ++at) {
      std::vector<float> state = q.states();
      EXPECT_EQ(run(q, {at, 20 - at}, state), whole) << at;
      EXPECT_EQ(state, whole_state) << at;
    }
    std::vector<float> state = q.states();
    EXPECT_EQ(run(q, std::vector<int64_t>(20, 1), state), whole);
    EXPECT_EQ(state, whole_state);
  }
}

TEST_P(CausalConv, TrapA6_PackedEqualsSeparateAndThreadsDoNotShow) {
  const Problem q(600, 4, true, true, 30, 4);
  const SeqSpans spans = packed({0, 1, 12, 2, 0, 15});
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    std::vector<float> state = q.states(), alone = q.states();
    std::vector<float> y(static_cast<size_t>(30 * q.C)), want(y.size());
    GetParam()->causal_conv({&pool}, q.params(spans, 0, y.data(), q.C, state));
    for (int64_t s = 0; s < spans.n_seqs(); ++s) {
      const auto i = static_cast<size_t>(s);
      const SeqSpans one = SeqSpans::one(spans.length(s), spans.slot[i]);
      GetParam()->causal_conv({&pool_},
                              q.params(one, spans.offset[i], want.data() + spans.offset[i] * q.C, q.C, alone));
    }
    EXPECT_EQ(y, want);
    EXPECT_EQ(state, alone);  // that of empty sequences and of absent slots is the one before
  }
}

TEST_P(CausalConv, TrapB1_OffsetsBeyond32Bits) {
  const int64_t ld = (int64_t{1} << 31) + 32;
  const HugeFloats x(3 * ld), far(3 * ld);
  if (x.data == nullptr || far.data == nullptr) GTEST_SKIP() << "no address space for 50 GB";
  const Problem q(20, 4, true, true, 3, 5);
  const SeqSpans spans = SeqSpans::one(3, 2);
  std::vector<float> state = q.states(), want(60);
  CausalConvParams p = q.params(spans, 0, want.data(), 20, state);
  for (int64_t t = 0; t < 3; ++t) std::copy_n(p.x + t * p.ldx, 20, x.data + t * ld);
  GetParam()->causal_conv({&pool_}, p);
  state = q.states();
  p.state = state.data();
  p.x = x.data, p.ldx = ld;
  p.y = far.data, p.ldy = ld;
  GetParam()->causal_conv({&pool_}, p);
  for (int64_t t = 0; t < 3; ++t) EXPECT_TRUE(same_bits(far.data + t * ld, &want[static_cast<size_t>(t * 20)], 20));
}

INSTANTIATE_TEST_SUITE_P(Kernels, CausalConv, testing::ValuesIn(cpu_kernel_sets()), set_name);

}  // namespace
}  // namespace krait
