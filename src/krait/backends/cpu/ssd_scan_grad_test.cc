#include "krait/kernels/reference/ssd_scan_grad.h"

#include "krait/backends/cpu/scan_testing.h"
#include "tests/bounded.h"

namespace krait {
namespace {

using namespace testing_util;

// The problem's numbers, and what its gradients are added to, as Real.
template <class Real>
struct Case {
  Case(const Problem2& problem, const SeqSpans& s)
      : q(problem),
        spans(s),
        xBC(wide(q.xBC.data)),
        dt(wide(q.dt.data)),
        A(wide(q.A)),
        D(wide(q.D)),
        bias(wide(q.bias)),
        before(some(s.n_seqs() * q.width() * q.shape.N, 21)),
        dy(some(q.xBC.T * q.xBC.ld, 22)) {
    const std::vector<float>* like[] = {&q.xBC.data, &q.dt.data, &q.A, &q.D, &q.bias};
    for (int i = 0; i < 5; ++i) out[i] = some(static_cast<int64_t>(like[i]->size()), 23 + static_cast<uint64_t>(i));
    out[5] = wide(q.states(8));
  }
  static std::vector<Real> wide(const std::vector<float>& v) { return {v.begin(), v.end()}; }
  static std::vector<Real> some(int64_t n, uint64_t seed) { return wide(normals(n, seed)); }

  SsdScanGradParamsOf<Real> params() {
    SsdScanGradParamsOf<Real> p{};
    SsdScanParamsOf<Real>& f = p.f;
    const Shape2& o = q.shape;
    f.spans = view(spans);
    f.x = xBC.data(), f.B = f.x + q.width(), f.C = f.B + o.G * o.N;
    f.ldx = f.ldb = f.ldc = q.xBC.ld;
    f.dt = dt.data(), f.lddt = q.dt.ld;
    f.A = A.data();
    if (o.D) f.D = D.data();
    f.D_per_channel = o.D_per_channel;
    if (o.bias) f.dt_bias = bias.data();
    f.dt_min = o.dt_min, f.dt_max = o.dt_max;
    f.H = o.H, f.P = o.P, f.N = o.N, f.G = o.G;
    p.before = before.data();
    p.dy = dy.data(), p.lddy = q.xBC.ld;
    p.dx = out[0].data(), p.dB = p.dx + q.width(), p.dC = p.dB + o.G * o.N;
    p.lddx = p.lddB = p.lddC = q.xBC.ld;
    p.ddt = out[1].data(), p.ldddt = q.dt.ld;
    p.dA = out[2].data();
    if (o.D) p.dD = out[3].data();
    if (o.bias) p.ddt_bias = out[4].data();
    p.dstate = out[5].data(), p.dstate_stride = q.state_stride();
    return p;
  }

  const Problem2& q;
  const SeqSpans& spans;
  std::vector<Real> xBC, dt, A, D, bias, before, dy;
  std::vector<Real> out[6];
};

constexpr const char* kNames[] = {"dx, dB, dC", "ddt", "dA", "dD", "ddt_bias", "dstate"};

void expect_matches(const KernelSet& set, ThreadPool& pool, const Problem2& q, const SeqSpans& spans) {
  Case<float> got(q, spans);
  set.ssd_scan_grad({&pool}, got.params());
  Case<Bounded> want(q, spans);
  const SsdScanGradParamsOf<Bounded> p = want.params();
  for (int64_t s = 0; s < spans.n_seqs(); ++s) {
    reference::SsdScanSums<Bounded> sums(q.shape.H, q.shape.P);
    for (int64_t k = 0; k < q.shape.G; ++k) reference::ssd_scan_grad_group(p, s, k, sums);
    sums.add_to(p);
  }
  const std::string name = std::string(set.name) + " H " + std::to_string(q.shape.H) + " P " +
                           std::to_string(q.shape.P) + " N " + std::to_string(q.shape.N) + " G " +
                           std::to_string(q.shape.G) + " ";
  for (int i = 0; i < 6; ++i) expect_bounded(got.out[i], want.out[i], name + kNames[i]);
}

class SsdScanGrad : public testing::TestWithParam<const KernelSet*> {
 protected:
  ThreadPool pool_{2};
};

TEST_P(SsdScanGrad, TrapB2_MatchesReferenceAtAnySize) {
  for (const Shape2 s : {Shape2{1, 1, 1, 1}, Shape2{3, 7, 5, 1}, Shape2{2, 64, 16, 2}, Shape2{2, 80, 3, 1},
                         Shape2{1, 128, 9, 1}, Shape2{1, 33, 130, 1}, Shape2{5, 16, 48, 1}, Shape2{1, 100, 4, 1}}) {
    expect_matches(*GetParam(), pool_, Problem2(s, 144, 1), packed({5, 0, 1, 33, 2, 103}));
  }
}

TEST_P(SsdScanGrad, TrapB12_EveryDivisorGAndBothShapesOfD) {
  for (const int64_t G : {1, 2, 3, 4, 6, 12}) {
    for (const bool per_channel : {false, true}) {
      expect_matches(*GetParam(), pool_, Problem2({12, 5, 6, G, true, per_channel}, 9, 2), packed({1, 8}));
    }
  }
}

TEST_P(SsdScanGrad, MatchesReferenceWithEveryOption) {
  for (int i = 0; i < 8; ++i) {
    Shape2 s{2, 19, 6, 1, (i & 1) != 0, false, (i & 2) != 0};
    if ((i & 4) != 0) s.dt_min = 0.5f, s.dt_max = 1.5f;
    expect_matches(*GetParam(), pool_, Problem2(s, 40, 3), packed({40}));
  }
}

TEST_P(SsdScanGrad, ParametersNeedNotBeWanted) {
  const Problem2 q({3, 35, 6, 1}, 40, 3);
  const SeqSpans spans = packed({7, 33});
  Case<float> all(q, spans), some(q, spans);
  GetParam()->ssd_scan_grad({&pool_}, all.params());
  SsdScanGradParams p = some.params();
  p.dA = p.dD = p.ddt_bias = nullptr;
  GetParam()->ssd_scan_grad({&pool_}, p);
  for (const int i : {0, 1, 5}) EXPECT_EQ(some.out[i], all.out[i]) << kNames[i];
}

TEST_P(SsdScanGrad, TrapA6_PackedEqualsSeparateAndThreadsDoNotShow) {
  const Problem2 q({5, 29, 6, 1}, 90, 4);
  const SeqSpans spans = packed({0, 1, 33, 2, 0, 32, 22});
  Case<float> alone(q, spans);
  for (size_t s = 0; s < spans.slot.size(); ++s) {
    const SeqSpans one = SeqSpans::one(spans.length(static_cast<int64_t>(s)), spans.slot[s]);
    SsdScanGradParams p = alone.params();
    const int64_t t = spans.offset[s];
    p.f.spans = view(one);
    p.f.x += t * p.f.ldx, p.f.dt += t * p.f.lddt, p.f.B += t * p.f.ldb, p.f.C += t * p.f.ldc;
    p.dx += t * p.lddx, p.ddt += t * p.ldddt, p.dB += t * p.lddB, p.dC += t * p.lddC;
    p.dy += t * p.lddy, p.before += static_cast<int64_t>(s) * p.f.H * p.f.P * p.f.N;
    GetParam()->ssd_scan_grad({&pool_}, p);
  }
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    Case<float> together(q, spans);
    GetParam()->ssd_scan_grad({&pool}, together.params());
    for (int i = 0; i < 6; ++i) EXPECT_EQ(together.out[i], alone.out[i]) << kNames[i] << ", threads " << threads;
  }
}

TEST_P(SsdScanGrad, TrapsB4B11_LargeStepsStayFinite) {
  Problem2 q({20, 4, 4, 1}, 1024, 6);
  for (int64_t t = 0; t < 1024; ++t) {
    for (int64_t h = 0; h < 20; ++h) q.dt.row(t)[h] = static_cast<float>((t + h) % 24) - 12;  // dt up to 12
  }
  const SeqSpans spans = packed({1024});
  Case<float> c(q, spans);
  GetParam()->ssd_scan_grad({&pool_}, c.params());
  for (const auto& values : c.out) {
    for (const float v : values) ASSERT_TRUE(std::isfinite(v));
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, SsdScanGrad, testing::ValuesIn(cpu_kernel_sets()), set_name);

}  // namespace
}  // namespace krait
