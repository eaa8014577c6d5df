#include "krait/kernels/reference/ssd_scan.h"

#include "krait/backends/cpu/scan_testing.h"

namespace krait {
namespace {

using namespace testing_util;

// One channel of one sequence: outputs and states against the oracle at double, within the bound carried along.
void expect_channel(const SsdScanParams& p, int64_t s, int64_t e, const float* before, const Rows& y,
                    const std::string& where) {
  const int64_t h = e / p.P, c = e % p.P, g = h / (p.H / p.G);
  const int64_t first = p.spans.slot[s] * p.state_stride + h * p.N * p.P + c;
  std::vector<double> S, error(static_cast<size_t>(p.N), 0.0);
  for (int64_t n = 0; n < p.N; ++n) S.push_back(before[first + n * p.P]);
  std::vector<double> previous = S;
  reference::ssd_scan_channel(p, s, h, c, S.data(), [&](int64_t t, double want) {
    const double v = static_cast<double>(p.dt[t * p.lddt + h]) + (p.dt_bias != nullptr ? p.dt_bias[h] : 0.0f);
    const double dt = reference::ssd_dt<double>(p, t, h), dt_error = tolerance::step_size(v);
    const double exponent = dt * static_cast<double>(p.A[h]), x = p.x[t * p.ldx + e];
    double sum = 0, bound = 0;
    for (int64_t n = 0; n < p.N; ++n) {
      const auto i = static_cast<size_t>(n);
      const double input = dt * x * static_cast<double>(p.B[t * p.ldb + g * p.N + n]);
      error[i] = tolerance::state(std::exp(exponent), tolerance::decay(exponent, dt_error), previous[i], error[i],
                                  input, dt_error);
      const double C = p.C[t * p.ldc + g * p.N + n];
      sum += std::fabs(C * S[i]);
      bound += std::fabs(C) * error[i];
    }
    if (p.D != nullptr) sum += std::fabs(static_cast<double>(p.D[p.D_per_channel ? e : h]) * x);
    bound += static_cast<double>(p.N + 2) * tolerance::kF32Unit * sum;
    expect_near(y.row(t)[e], want, bound, where + " token " + std::to_string(t));
    previous = S;
  });
  for (int64_t n = 0; n < p.N; ++n) {
    expect_near(p.state[first + n * p.P], S[static_cast<size_t>(n)], error[static_cast<size_t>(n)],
                where + " state " + std::to_string(n));
  }
}

void expect_matches(const KernelSet& set, ThreadPool& pool, const Problem2& q, const SeqSpans& spans) {
  Rows y(spans.n_tokens(), q.width(), 4);
  const std::vector<float> before = q.states(8);
  std::vector<float> state = before;
  const SsdScanParams p = q.params(spans, 0, y.row(0), y.ld, state);
  set.ssd_scan({&pool}, p);
  y.expect_gaps_untouched();
  for (int64_t s = 0; s < spans.n_seqs(); ++s) {
    for (int64_t e = 0; e < q.width(); ++e) {
      expect_channel(p, s, e, before.data(), y,
                     std::string(set.name) + " H " + std::to_string(p.H) + " P " + std::to_string(p.P) + " N " +
                         std::to_string(p.N) + " G " + std::to_string(p.G) + " sequence " + std::to_string(s) +
                         " channel " + std::to_string(e));
    }
  }
}

class SsdScan : public testing::TestWithParam<const KernelSet*> {
 protected:
  // One sequence in pieces of these lengths; all outputs [T, H·P].
  std::vector<float> run(const Problem2& q, const std::vector<int64_t>& lengths, std::vector<float>& state) {
    std::vector<float> y;
    int64_t t0 = 0;
    for (const int64_t n : lengths) {
      const SeqSpans spans = SeqSpans::one(n, 2);
      y.resize(static_cast<size_t>((t0 + n) * q.width()));
      GetParam()->ssd_scan({&pool_}, q.params(spans, t0, y.data() + t0 * q.width(), q.width(), state));
      t0 += n;
    }
    return y;
  }
  ThreadPool pool_{2};
};

TEST_P(SsdScan, TrapB2_MatchesReferenceAtAnySize) {
  for (const Shape2 s : {Shape2{1, 1, 1, 1}, Shape2{3, 7, 5, 1}, Shape2{2, 64, 16, 2}, Shape2{2, 80, 3, 1},
                         Shape2{1, 128, 9, 1}, Shape2{1, 33, 256, 1}, Shape2{2, 16, 130, 1}, Shape2{1, 100, 4, 1}}) {
    expect_matches(*GetParam(), pool_, Problem2(s, 76, 1), packed({5, 0, 1, 33, 2, 35}));
  }
}

TEST_P(SsdScan, TrapB12_EveryDivisorGAndBothShapesOfD) {
  for (const int64_t G : {1, 2, 3, 4, 6, 12}) {
    for (const bool per_channel : {false, true}) {
      expect_matches(*GetParam(), pool_, Problem2({12, 5, 6, G, true, per_channel}, 9, 2), packed({1, 8}));
    }
  }
}

TEST_P(SsdScan, MatchesReferenceWithEveryOption) {
  for (int i = 0; i < 8; ++i) {
    Shape2 s{2, 19, 6, 1, (i & 1) != 0, false, (i & 2) != 0};
    if ((i & 4) != 0) s.dt_min = 0.5f, s.dt_max = 1.5f;
    expect_matches(*GetParam(), pool_, Problem2(s, 20, 3), packed({20}));
  }
}

TEST_P(SsdScan, TrapA2_SplitAtEveryPosition) {
  const Problem2 q({3, 24, 6, 1}, 70, 4);
  std::vector<float> whole_state = q.states(8);
  const std::vector<float> whole = run(q, {70}, whole_state);
  for (int64_t at = 0; at <= 70; ++at) {
    std::vector<float> state = q.states(8);
    EXPECT_EQ(run(q, {at, 70 - at}, state), whole) << at;
    EXPECT_EQ(state, whole_state) << at;
  }
  std::vector<float> state = q.states(8);
  EXPECT_EQ(run(q, std::vector<int64_t>(70, 1), state), whole);
  EXPECT_EQ(state, whole_state);
}

TEST_P(SsdScan, TrapA6_PackedEqualsSeparateAndThreadsDoNotShow) {
  const Problem2 q({4, 69, 5, 2}, 90, 5);
  const SeqSpans spans = packed({0, 1, 33, 2, 0, 32, 22});
  const int64_t width = q.width();
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    std::vector<float> state = q.states(8), alone = q.states(8);
    std::vector<float> y(static_cast<size_t>(90 * width)), want(y.size());
    GetParam()->ssd_scan({&pool}, q.params(spans, 0, y.data(), width, state));
    for (int64_t s = 0; s < spans.n_seqs(); ++s) {
      const auto i = static_cast<size_t>(s);
      const SeqSpans one = SeqSpans::one(spans.length(s), spans.slot[i]);
      const int64_t first = spans.offset[i];
      GetParam()->ssd_scan({&pool_}, q.params(one, first, want.data() + first * width, width, alone));
    }
    EXPECT_EQ(y, want);
    EXPECT_EQ(state, alone);  // that of empty sequences and of absent slots is the one before
  }
}

TEST_P(SsdScan, OutputMayBeTheInput) {
  Problem2 q({2, 70, 4, 1}, 37, 6);
  std::vector<float> state = q.states(8);
  const std::vector<float> want = run(q, {37}, state);
  state = q.states(8);
  const SeqSpans spans = SeqSpans::one(37, 2);
  GetParam()->ssd_scan({&pool_}, q.params(spans, 0, q.xBC.row(0), q.xBC.ld, state));
  for (int64_t t = 0; t < 37; ++t) {
    EXPECT_TRUE(same_bits(q.xBC.row(t), &want[static_cast<size_t>(t * 140)], 140)) << t;
  }
}

TEST_P(SsdScan, TrapsB4B11_LargeStepsStayFinite) {
  Problem2 q({24, 4, 4, 1}, 1024, 7);
  for (int64_t t = 0; t < 1024; ++t) {
    for (int64_t h = 0; h < 24; ++h) q.dt.row(t)[h] = static_cast<float>((t + h) % 24) - 12;  // dt up to 12
  }
  std::vector<float> state = q.states(8);
  for (int i = 0; i < 32; ++i) {
    for (const float y : run(q, {1024}, state)) ASSERT_TRUE(std::isfinite(y));
  }
  for (const float v : state) EXPECT_TRUE(std::isfinite(v));
}

TEST_P(SsdScan, TrapB1_OffsetsBeyond32Bits) {
  const int64_t ld = (int64_t{1} << 31) + 32, slot_stride = (int64_t{1} << 31) + 64;
  const HugeFloats x(3 * ld), state(3 * slot_stride);
  if (x.data == nullptr || state.data == nullptr) GTEST_SKIP() << "no address space for 50 GB";
  const Problem2 q({2, 10, 3, 1}, 3, 8);
  const SeqSpans spans = SeqSpans::one(3, 2);
  std::vector<float> near_state = q.states(8), y(60), want(60);
  SsdScanParams p = q.params(spans, 0, want.data(), 20, near_state);
  for (int64_t t = 0; t < 3; ++t) std::copy_n(p.x + t * p.ldx, 26, x.data + t * ld);
  std::copy_n(p.state + 2 * p.state_stride, 60, state.data + 2 * slot_stride);
  GetParam()->ssd_scan({&pool_}, p);
  p.x = x.data, p.B = p.x + 20, p.C = p.B + 3;
  p.ldx = p.ldb = p.ldc = ld;
  p.state = state.data, p.state_stride = slot_stride;
  p.y = y.data();
  GetParam()->ssd_scan({&pool_}, p);
  EXPECT_EQ(y, want);
  EXPECT_TRUE(same_bits(state.data + 2 * slot_stride, near_state.data() + 2 * q.state_stride(), 60));
}

INSTANTIATE_TEST_SUITE_P(Kernels, SsdScan, testing::ValuesIn(cpu_kernel_sets()), set_name);

}  // namespace
}  // namespace krait
