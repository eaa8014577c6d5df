#include "krait/kernels/reference/mamba1_scan_grad.h"

#include "krait/backends/cpu/scan_testing.h"
#include "tests/bounded.h"

namespace krait {
namespace {

using namespace testing_util;

// The problem's numbers, and what its gradients are added to, as Real.
template <class Real>
struct Case {
  Case(const Problem1& problem, const SeqSpans& s)
      : q(problem),
        spans(s),
        x(wide(q.x.data)),
        dt(wide(q.dt.data)),
        BC(wide(q.BC.data)),
        z(wide(q.z.data)),
        A(wide(q.A)),
        D(wide(q.D)),
        bias(wide(q.bias)),
        before(some(s.n_seqs() * q.shape.N * q.shape.E, 21)),
        dy(some(q.x.T * q.x.ld, 22)) {
    const std::vector<float>* like[] = {&q.x.data, &q.dt.data, &q.BC.data, &q.z.data, &q.A, &q.D, &q.bias};
    for (int i = 0; i < 7; ++i) out[i] = some(static_cast<int64_t>(like[i]->size()), 23 + static_cast<uint64_t>(i));
    out[7] = wide(q.states(8));
  }
  static std::vector<Real> wide(const std::vector<float>& v) { return {v.begin(), v.end()}; }
  static std::vector<Real> some(int64_t n, uint64_t seed) { return wide(normals(n, seed)); }

  Mamba1ScanGradParamsOf<Real> params() {
    Mamba1ScanGradParamsOf<Real> p{};
    Mamba1ScanParamsOf<Real>& f = p.f;
    const Shape1& o = q.shape;
    f.spans = view(spans);
    f.x = x.data(), f.ldx = q.x.ld;
    f.dt = dt.data(), f.lddt = q.dt.ld;
    f.B = BC.data(), f.C = f.B + o.N, f.ldb = f.ldc = q.BC.ld;
    if (o.z) f.z = z.data(), f.ldz = q.z.ld;
    f.A = A.data();
    if (o.D) f.D = D.data();
    if (o.bias) f.dt_bias = bias.data();
    f.softplus = o.softplus;
    f.E = o.E, f.N = o.N;
    p.before = before.data();
    p.dy = dy.data(), p.lddy = q.x.ld;
    p.dx = out[0].data(), p.lddx = q.x.ld;
    p.ddt = out[1].data(), p.ldddt = q.dt.ld;
    p.dB = out[2].data(), p.dC = p.dB + o.N, p.lddB = p.lddC = q.BC.ld;
    if (o.z) p.dz = out[3].data(), p.lddz = q.z.ld;
    p.dA = out[4].data();
    if (o.D) p.dD = out[5].data();
    if (o.bias) p.ddt_bias = out[6].data();
    p.dstate = out[7].data(), p.dstate_stride = q.state_stride();
    return p;
  }

  const Problem1& q;
  const SeqSpans& spans;
  std::vector<Real> x, dt, BC, z, A, D, bias, before, dy;
  std::vector<Real> out[8];
};

constexpr const char* kNames[] = {"dx", "ddt", "dB, dC", "dz", "dA", "dD", "ddt_bias", "dstate"};

void expect_matches(const KernelSet& set, ThreadPool& pool, const Problem1& q, const SeqSpans& spans) {
  Case<float> got(q, spans);
  set.mamba1_scan_grad({&pool}, got.params());
  Case<Bounded> want(q, spans);
  const Mamba1ScanGradParamsOf<Bounded> p = want.params();
  for (int64_t s = 0; s < spans.n_seqs(); ++s) {
    reference::Mamba1ScanSums<Bounded> sums(q.shape.E, q.shape.N);
    reference::mamba1_scan_grad_sequence(p, s, sums);
    sums.add_to(p);
  }
  const std::string name =
      std::string(set.name) + " E " + std::to_string(q.shape.E) + " N " + std::to_string(q.shape.N) + " ";
  for (int i = 0; i < 8; ++i) expect_bounded(got.out[i], want.out[i], name + kNames[i]);
}

class Mamba1ScanGrad : public testing::TestWithParam<const KernelSet*> {
 protected:
  ThreadPool pool_{2};
};

TEST_P(Mamba1ScanGrad, TrapB2_MatchesReferenceAtAnySize) {
  for (const Shape1 s : {Shape1{1, 1}, Shape1{7, 3}, Shape1{16, 16}, Shape1{40, 16}, Shape1{64, 5}, Shape1{67, 16},
                         Shape1{130, 2}, Shape1{33, 65}, Shape1{290, 7}}) {
    expect_matches(*GetParam(), pool_, Problem1(s, 76, 1), packed({5, 0, 1, 33, 2, 35}));
  }
}

TEST_P(Mamba1ScanGrad, MatchesReferenceWithEveryOption) {
  for (int i = 0; i < 16; ++i) {
    const Shape1 s{19, 4, (i & 1) != 0, (i & 2) != 0, (i & 4) != 0, (i & 8) != 0};
    expect_matches(*GetParam(), pool_, Problem1(s, 40, 2), packed({40}));
  }
}

TEST_P(Mamba1ScanGrad, ParametersNeedNotBeWanted) {
  const Problem1 q({35, 6}, 40, 3);
  const SeqSpans spans = packed({7, 33});
  Case<float> all(q, spans), some(q, spans);
  GetParam()->mamba1_scan_grad({&pool_}, all.params());
  Mamba1ScanGradParams p = some.params();
  p.dA = p.dD = p.ddt_bias = nullptr;
  GetParam()->mamba1_scan_grad({&pool_}, p);
  for (const int i : {0, 1, 2, 3, 7}) EXPECT_EQ(some.out[i], all.out[i]) << kNames[i];
}

TEST_P(Mamba1ScanGrad, TrapA6_PackedEqualsSeparateAndThreadsDoNotShow) {
  const Problem1 q({145, 6}, 90, 4);
  const SeqSpans spans = packed({0, 1, 33, 2, 0, 32, 22});
  Case<float> alone(q, spans);
  for (size_t s = 0; s < spans.slot.size(); ++s) {
    const SeqSpans one = SeqSpans::one(spans.length(static_cast<int64_t>(s)), spans.slot[s]);
    Mamba1ScanGradParams p = alone.params();
    const int64_t t = spans.offset[s];
    p.f.spans = view(one);
    p.f.x += t * p.f.ldx, p.f.dt += t * p.f.lddt, p.f.B += t * p.f.ldb, p.f.C += t * p.f.ldc, p.f.z += t * p.f.ldz;
    p.dx += t * p.lddx, p.ddt += t * p.ldddt, p.dB += t * p.lddB, p.dC += t * p.lddC, p.dz += t * p.lddz;
    p.dy += t * p.lddy, p.before += static_cast<int64_t>(s) * p.f.N * p.f.E;
    GetParam()->mamba1_scan_grad({&pool_}, p);
  }
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    Case<float> together(q, spans);
    GetParam()->mamba1_scan_grad({&pool}, together.params());
    for (int i = 0; i < 8; ++i) EXPECT_EQ(together.out[i], alone.out[i]) << kNames[i] << ", threads " << threads;
  }
}

TEST_P(Mamba1ScanGrad, TrapsB4B11_LargeStepsStayFinite) {
  Problem1 q({20, 4}, 1024, 6);
  for (int64_t t = 0; t < 1024; ++t) {
    for (int64_t e = 0; e < 20; ++e) q.dt.row(t)[e] = static_cast<float>((t * 20 + e) % 24) - 12;  // dt up to 12
  }
  const SeqSpans spans = packed({1024});
  Case<float> c(q, spans);
  GetParam()->mamba1_scan_grad({&pool_}, c.params());
  for (const auto& values : c.out) {
    for (const float v : values) ASSERT_TRUE(std::isfinite(v));
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Mamba1ScanGrad, testing::ValuesIn(cpu_kernel_sets()), set_name);

}  // namespace
}  // namespace krait
