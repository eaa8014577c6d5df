#include "krait/kernels/reference/mamba1_scan.h"

#include "krait/backends/cpu/scan_testing.h"

namespace krait {
namespace {

using namespace testing_util;

// Runs the kernel and checks outputs and states of every sequence against the oracle at double.
void expect_matches(const KernelSet& set, ThreadPool& pool, const Problem1& q, const SeqSpans& spans) {
  const auto [E, N] = std::pair(q.shape.E, q.shape.N);
  Rows y(spans.n_tokens(), E, 4);
  const std::vector<float> before = q.states(8);
  std::vector<float> state = before;
  const Mamba1ScanParams p = q.params(spans, 0, y.row(0), y.ld, state);
  set.mamba1_scan({&pool}, p);
  y.expect_gaps_untouched();
  const std::string name = std::string(set.name) + " E " + std::to_string(E) + " N " + std::to_string(N);
  for (int64_t s = 0; s < spans.n_seqs(); ++s) {
    const int64_t first = spans.slot[static_cast<size_t>(s)] * q.state_stride();
    for (int64_t e = 0; e < E; ++e) {
      const std::string where = name + " sequence " + std::to_string(s) + " channel " + std::to_string(e);
      std::vector<double> h, error(static_cast<size_t>(N), 0.0);
      for (int64_t n = 0; n < N; ++n) h.push_back(before[static_cast<size_t>(first + n * E + e)]);
      std::vector<double> previous = h;
      reference::mamba1_scan_channel(p, s, e, h.data(), [&](int64_t t, double want) {
        const double v = static_cast<double>(p.dt[t * p.lddt + e]) + (p.dt_bias != nullptr ? p.dt_bias[e] : 0.0f);
        const double dt = p.softplus ? reference::softplus(v) : v, dt_error = tolerance::step_size(v);
        const double x = p.x[t * p.ldx + e];
        double sum = 0, bound = 0;
        for (int64_t n = 0; n < N; ++n) {
          const auto i = static_cast<size_t>(n);
          const double exponent = dt * static_cast<double>(p.A[n * E + e]), C = p.C[t * p.ldc + n];
          error[i] = tolerance::state(std::exp(exponent), tolerance::decay(exponent, dt_error), previous[i], error[i],
                                      dt * x * static_cast<double>(p.B[t * p.ldb + n]), dt_error);
          sum += std::fabs(C * h[i]);
          bound += std::fabs(C) * error[i];
        }
        if (p.D != nullptr) sum += std::fabs(static_cast<double>(p.D[e]) * x);
        bound += static_cast<double>(N + 2) * tolerance::kF32Unit * sum;
        if (p.z != nullptr) {
          const double gate = reference::silu(static_cast<double>(p.z[t * p.ldz + e]));
          bound = bound * std::fabs(gate) + sum * (tolerance::silu(std::fabs(gate)) + 1e-7 * std::fabs(gate));
        }
        expect_near(y.row(t)[e], want, bound, where + " token " + std::to_string(t));
        previous = h;
      });
      for (int64_t n = 0; n < N; ++n) {
        expect_near(state[static_cast<size_t>(first + n * E + e)], h[static_cast<size_t>(n)],
                    error[static_cast<size_t>(n)], where + " state " + std::to_string(n));
      }
    }
  }
}

class Mamba1Scan : public testing::TestWithParam<const KernelSet*> {
 protected:
  // One sequence cut after each of `cuts`; all outputs [T·E].
  std::vector<float> run(const Problem1& q, const std::vector<int64_t>& lengths, std::vector<float>& state,
                         ThreadPool& pool) {
    const int64_t E = q.shape.E;
    std::vector<float> y;
    int64_t t0 = 0;
    for (const int64_t n : lengths) {
      const SeqSpans spans = SeqSpans::one(n, 2);
      y.resize(static_cast<size_t>((t0 + n) * E));
      GetParam()->mamba1_scan({&pool}, q.params(spans, t0, y.data() + t0 * E, E, state));
      t0 += n;
    }
    return y;
  }
  ThreadPool pool_{2};
};

TEST_P(Mamba1Scan, TrapB2_MatchesReferenceAtAnySize) {
  for (const Shape1 s : {Shape1{1, 1}, Shape1{7, 3}, Shape1{16, 16}, Shape1{40, 16}, Shape1{64, 5}, Shape1{67, 16},
                         Shape1{130, 2}, Shape1{33, 256}, Shape1{129, 7}, Shape1{1601, 5}}) {
    expect_matches(*GetParam(), pool_, Problem1(s, 41, 1), packed({5, 0, 1, 33, 2}));
  }
}

TEST_P(Mamba1Scan, MatchesReferenceWithEveryOption) {
  for (int i = 0; i < 16; ++i) {
    const Shape1 s{19, 4, (i & 1) != 0, (i & 2) != 0, (i & 4) != 0, (i & 8) != 0};
    expect_matches(*GetParam(), pool_, Problem1(s, 20, 2), packed({20}));
  }
}

TEST_P(Mamba1Scan, TrapA2_SplitAtEveryPosition) {
  const Problem1 q({77, 9}, 40, 3);
  std::vector<float> whole_state = q.states(8);
  const std::vector<float> whole = run(q, {40}, whole_state, pool_);
  for (int64_t at = 0; at <= 40; ++at) {
    std::vector<float> state = q.states(8);
    EXPECT_EQ(run(q, {at, 40 - at}, state, pool_), whole) << at;
    EXPECT_EQ(state, whole_state) << at;
  }
  std::vector<float> state = q.states(8);
  EXPECT_EQ(run(q, std::vector<int64_t>(40, 1), state, pool_), whole);
  EXPECT_EQ(state, whole_state);
}

TEST_P(Mamba1Scan, TrapA6_PackedEqualsSeparateAndThreadsDoNotShow) {
  const Problem1 q({85, 6}, 60, 4);
  const SeqSpans spans = packed({0, 1, 17, 2, 0, 16, 24});
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    std::vector<float> state = q.states(8), alone = q.states(8);
    std::vector<float> y(static_cast<size_t>(60 * 85)), want(y.size());
    GetParam()->mamba1_scan({&pool}, q.params(spans, 0, y.data(), 85, state));
    for (int64_t s = 0; s < spans.n_seqs(); ++s) {
      const auto i = static_cast<size_t>(s);
      const SeqSpans one = SeqSpans::one(spans.length(s), spans.slot[i]);
      GetParam()->mamba1_scan({&pool_}, q.params(one, spans.offset[i], want.data() + spans.offset[i] * 85, 85, alone));
    }
    EXPECT_EQ(y, want);
    EXPECT_EQ(state, alone);  // that of empty sequences and of absent slots is the one before
  }
}

TEST_P(Mamba1Scan, OutputMayBeTheInput) {
  Problem1 q({70, 4}, 37, 5);
  std::vector<float> state = q.states(8);
  const std::vector<float> want = run(q, {37}, state, pool_);
  state = q.states(8);
  const SeqSpans spans = SeqSpans::one(37, 2);
  GetParam()->mamba1_scan({&pool_}, q.params(spans, 0, q.x.row(0), q.x.ld, state));
  for (int64_t t = 0; t < 37; ++t) EXPECT_TRUE(same_bits(q.x.row(t), &want[static_cast<size_t>(t * 70)], 70)) << t;
}

TEST_P(Mamba1Scan, TrapsB4B11_LargeStepsStayFinite) {
  Problem1 q({20, 4}, 1024, 6);
  for (int64_t t = 0; t < 1024; ++t) {
    for (int64_t e = 0; e < 20; ++e) q.dt.row(t)[e] = static_cast<float>((t * 20 + e) % 24) - 12;  // dt up to 12
  }
  std::vector<float> state = q.states(8);
  for (int i = 0; i < 32; ++i) {
    for (const float y : run(q, {1024}, state, pool_)) ASSERT_TRUE(std::isfinite(y));
  }
  for (const float h : state) EXPECT_TRUE(std::isfinite(h));
}

TEST_P(Mamba1Scan, TrapB1_OffsetsBeyond32Bits) {
  const int64_t ld = (int64_t{1} << 31) + 32, slot_stride = (int64_t{1} << 31) + 64;
  const HugeFloats x(3 * ld), state(3 * slot_stride);
  if (x.data == nullptr || state.data == nullptr) GTEST_SKIP() << "no address space for 50 GB";
  const Problem1 q({20, 3}, 3, 7);
  const SeqSpans spans = SeqSpans::one(3, 2);
  std::vector<float> near_state = q.states(8), y(60), want(60);
  Mamba1ScanParams p = q.params(spans, 0, want.data(), 20, near_state);
  for (int64_t t = 0; t < 3; ++t) std::copy_n(p.x + t * p.ldx, 20, x.data + t * ld);
  std::copy_n(p.state + 2 * p.state_stride, 60, state.data + 2 * slot_stride);
  GetParam()->mamba1_scan({&pool_}, p);
  p.x = x.data, p.ldx = ld;
  p.state = state.data, p.state_stride = slot_stride;
  p.y = y.data();
  GetParam()->mamba1_scan({&pool_}, p);
  EXPECT_EQ(y, want);
  EXPECT_TRUE(same_bits(state.data + 2 * slot_stride, near_state.data() + 2 * q.state_stride(), 60));
}

INSTANTIATE_TEST_SUITE_P(Kernels, Mamba1Scan, testing::ValuesIn(cpu_kernel_sets()), set_name);

}  // namespace
}  // namespace krait
