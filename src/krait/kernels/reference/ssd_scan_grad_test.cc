#include "krait/kernels/reference/ssd_scan_grad.h"

#include <limits>

#include "krait/core/seq_spans.h"
#include "krait/kernels/reference/complex_step.h"
#include "krait/kernels/reference/ssd_scan.h"

namespace krait {
namespace {

using reference::Complex;
using reference::StepInput;

struct Options {
  int64_t H, P, N, G;
  bool D = true, D_per_channel = false, bias = true;
  float dt_min = 0, dt_max = std::numeric_limits<float>::infinity();
  std::string name() const {
    std::string s = "H " + std::to_string(H) + " P " + std::to_string(P) + " N " + std::to_string(N);
    s += " G " + std::to_string(G) + (D ? " D" : "") + (D_per_channel ? " by channel" : "") + (bias ? " bias" : "");
    return s + (dt_min > 0 ? " limits" : "");
  }
};

enum { kX, kDt, kB, kC, kA, kD, kBias, kBefore, kArrays };

// All inputs of a packed batch, and random weights of the outputs and of the states after.
struct Problem {
  Problem(const Options& options, const std::vector<int64_t>& lengths) : o(options) {
    for (const int64_t n : lengths) spans.add(n, static_cast<int32_t>(spans.n_seqs() * 2 % 7));
    const int64_t T = spans.n_tokens(), E = o.H * o.P;
    const int64_t sizes[kArrays] = {T * E, T * o.H, T * o.G * o.N, T * o.G * o.N,
                                    o.H,   E,       o.H,           spans.n_seqs() * E * o.N};
    for (int i = 0; i < kArrays; ++i) in.emplace_back(sizes[i], 1 + static_cast<uint64_t>(i));
    for (size_t i = 0; i < in[kA].value.size(); ++i) in[kA].complex[i] = in[kA].value[i] = -std::exp(in[kA].value[i]);
    dy = StepInput::normals(T * E, 20);
    dstate = StepInput::normals(7 * o.N * E, 21);
  }

  template <class Real>
  SsdScanParamsOf<Real> params(std::vector<Real> StepInput::* of) {
    const auto data = [&](int i) { return (in[static_cast<size_t>(i)].*of).data(); };
    SsdScanParamsOf<Real> p{};
    p.spans = {spans.offset.data(), spans.slot.data(), spans.n_seqs()};
    p.x = data(kX), p.dt = data(kDt), p.B = data(kB), p.C = data(kC), p.A = data(kA);
    p.D = o.D ? data(kD) : nullptr;
    p.D_per_channel = o.D_per_channel;
    p.dt_bias = o.bias ? data(kBias) : nullptr;
    p.dt_min = o.dt_min, p.dt_max = o.dt_max;
    p.ldx = o.H * o.P, p.lddt = o.H, p.ldb = p.ldc = o.G * o.N;
    p.H = o.H, p.P = o.P, p.N = o.N, p.G = o.G;
    return p;
  }

  // Σ dy·y + Σ dstate·(state after)
  Complex objective() {
    const SsdScanParamsOf<Complex> p = params(&StepInput::complex);
    const std::vector<Complex>& before = in[kBefore].complex;
    Complex sum = 0;
    for (int64_t i = 0; i < spans.n_seqs() * o.H * o.P; ++i) {
      const int64_t s = i / (o.H * o.P), e = i % (o.H * o.P), h = e / o.P, c = e % o.P;
      const Complex* initial = &before[static_cast<size_t>((s * o.H + h) * o.N * o.P + c)];
      std::vector<Complex> S;
      for (int64_t n = 0; n < o.N; ++n) S.push_back(initial[n * o.P]);
      reference::ssd_scan_channel(p, s, h, c, S.data(),
                                  [&](int64_t t, Complex y) { sum += dy[static_cast<size_t>(t * p.ldx + e)] * y; });
      const double* after =
          &dstate[static_cast<size_t>((spans.slot[static_cast<size_t>(s)] * o.H + h) * o.N * o.P + c)];
      for (int64_t n = 0; n < o.N; ++n) sum += after[n * o.P] * S[static_cast<size_t>(n)];
    }
    return sum;
  }

  void run() {
    std::vector<double> states = dstate;
    SsdScanGradParamsOf<double> p{};
    p.f = params(&StepInput::value);
    p.before = in[kBefore].value.data();
    p.dy = dy.data(), p.lddy = p.f.ldx;
    p.dx = in[kX].gradient.data(), p.lddx = p.f.ldx;
    p.ddt = in[kDt].gradient.data(), p.ldddt = p.f.lddt;
    p.dB = in[kB].gradient.data(), p.lddB = p.f.ldb;
    p.dC = in[kC].gradient.data(), p.lddC = p.f.ldb;
    p.dA = in[kA].gradient.data();
    p.dD = o.D ? in[kD].gradient.data() : nullptr;
    p.ddt_bias = o.bias ? in[kBias].gradient.data() : nullptr;
    p.dstate = states.data(), p.dstate_stride = o.H * o.N * o.P;
    for (int64_t s = 0; s < spans.n_seqs(); ++s) {
      reference::SsdScanSums<double> sums(o.H, o.P);
      for (int64_t k = 0; k < o.G; ++k) reference::ssd_scan_grad_group(p, s, k, sums);
      sums.add_to(p);
      std::copy_n(&states[static_cast<size_t>(spans.slot[static_cast<size_t>(s)] * p.dstate_stride)], p.dstate_stride,
                  &in[kBefore].gradient[static_cast<size_t>(s * p.dstate_stride)]);
    }
  }

  Options o;
  SeqSpans spans;
  std::vector<StepInput> in;
  std::vector<double> dy, dstate;
};

void expect_right(const Options& o, const std::vector<int64_t>& lengths) {
  Problem q(o, lengths);
  q.run();
  const char* names[kArrays] = {"x", "dt", "B", "C", "A", "D", "dt_bias", "before"};
  for (int i = 0; i < kArrays; ++i) {
    const std::string name = o.name() + " d" + names[i];
    reference::expect_gradient(name, q.in[static_cast<size_t>(i)], [&] { return q.objective(); }, i != kBefore);
  }
}

TEST(SsdScanGradReference, EqualsComplexStep) {
  for (const Options& o : {Options{1, 1, 1, 1}, Options{2, 3, 5, 1}, Options{3, 2, 3, 3}, Options{4, 1, 2, 2}}) {
    expect_right(o, {1, 0, 5, 2, 7});
  }
}

TEST(SsdScanGradReference, EqualsComplexStepWithEveryOption) {
  for (int i = 0; i < 12; ++i) {
    Options o{2, 3, 4, 1, i % 3 != 0, i % 3 == 2, i / 3 % 2 == 0};
    if (i >= 6) o.dt_min = 0.4f, o.dt_max = 1.1f;
    expect_right(o, {4, 3});
  }
}

}  // namespace
}  // namespace krait
