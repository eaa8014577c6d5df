#include "krait/kernels/reference/mamba1_scan_grad.h"

#include "krait/core/seq_spans.h"
#include "krait/kernels/reference/complex_step.h"
#include "krait/kernels/reference/mamba1_scan.h"

namespace krait {
namespace {

using reference::Complex;
using reference::StepInput;

struct Options {
  int64_t E, N;
  bool z = true, D = true, bias = true, softplus = true;
  std::string name() const {
    std::string s = "E " + std::to_string(E) + " N " + std::to_string(N);
    return s + (z ? " z" : "") + (D ? " D" : "") + (bias ? " bias" : "") + (softplus ? " softplus" : "");
  }
};

enum { kX, kDt, kB, kC, kZ, kA, kD, kBias, kBefore, kArrays };

// All inputs of a packed batch, and random weights of the outputs and of the states after.
struct Problem {
  Problem(const Options& options, const std::vector<int64_t>& lengths) : o(options) {
    for (const int64_t n : lengths) spans.add(n, static_cast<int32_t>(spans.n_seqs() * 2 % 7));
    const int64_t T = spans.n_tokens(), S = spans.n_seqs(), E = o.E, N = o.N;
    const int64_t sizes[kArrays] = {T * E, T * E, T * N, T * N, T * E, N * E, E, E, S * N * E};
    for (int i = 0; i < kArrays; ++i) in.emplace_back(sizes[i], 1 + static_cast<uint64_t>(i));
    for (size_t i = 0; i < in[kA].value.size(); ++i) in[kA].complex[i] = in[kA].value[i] = -std::exp(in[kA].value[i]);
    dy = StepInput::normals(T * E, 20);
    dstate = StepInput::normals(7 * N * E, 21);
  }

  template <class Real>
  Mamba1ScanParamsOf<Real> params(std::vector<Real> StepInput::* of) {
    const auto data = [&](int i) { return (in[static_cast<size_t>(i)].*of).data(); };
    Mamba1ScanParamsOf<Real> p{};
    p.spans = {spans.offset.data(), spans.slot.data(), spans.n_seqs()};
    p.x = data(kX), p.dt = data(kDt), p.B = data(kB), p.C = data(kC), p.A = data(kA);
    p.z = o.z ? data(kZ) : nullptr;
    p.D = o.D ? data(kD) : nullptr;
    p.dt_bias = o.bias ? data(kBias) : nullptr;
    p.ldx = p.lddt = p.ldz = o.E, p.ldb = p.ldc = o.N;
    p.softplus = o.softplus;
    p.E = o.E, p.N = o.N;
    return p;
  }

  // Σ dy·y + Σ dstate·(state after)
  Complex objective() {
    const Mamba1ScanParamsOf<Complex> p = params(&StepInput::complex);
    const std::vector<Complex>& before = in[kBefore].complex;
    Complex sum = 0;
    for (int64_t s = 0; s < spans.n_seqs(); ++s) {
      for (int64_t e = 0; e < o.E; ++e) {
        std::vector<Complex> h;
        for (int64_t n = 0; n < o.N; ++n) h.push_back(before[static_cast<size_t>((s * o.N + n) * o.E + e)]);
        reference::mamba1_scan_channel(p, s, e, h.data(),
                                       [&](int64_t t, Complex y) { sum += dy[static_cast<size_t>(t * o.E + e)] * y; });
        const int64_t slot = spans.slot[static_cast<size_t>(s)];
        for (int64_t n = 0; n < o.N; ++n) {
          sum += dstate[static_cast<size_t>((slot * o.N + n) * o.E + e)] * h[static_cast<size_t>(n)];
        }
      }
    }
    return sum;
  }

  void run() {
    std::vector<double> states = dstate;
    Mamba1ScanGradParamsOf<double> p{};
    p.f = params(&StepInput::value);
    p.before = in[kBefore].value.data();
    p.dy = dy.data(), p.lddy = o.E;
    p.dx = in[kX].gradient.data(), p.lddx = o.E;
    p.ddt = in[kDt].gradient.data(), p.ldddt = o.E;
    p.dB = in[kB].gradient.data(), p.lddB = o.N;
    p.dC = in[kC].gradient.data(), p.lddC = o.N;
    p.dz = o.z ? in[kZ].gradient.data() : nullptr, p.lddz = o.E;
    p.dA = in[kA].gradient.data();
    p.dD = o.D ? in[kD].gradient.data() : nullptr;
    p.ddt_bias = o.bias ? in[kBias].gradient.data() : nullptr;
    p.dstate = states.data(), p.dstate_stride = o.N * o.E;
    for (int64_t s = 0; s < spans.n_seqs(); ++s) {
      reference::Mamba1ScanSums<double> sums(o.E, o.N);
      reference::mamba1_scan_grad_sequence(p, s, sums);
      sums.add_to(p);
      std::copy_n(&states[static_cast<size_t>(spans.slot[static_cast<size_t>(s)] * o.N * o.E)], o.N * o.E,
                  &in[kBefore].gradient[static_cast<size_t>(s * o.N * o.E)]);
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
  const char* names[kArrays] = {"x", "dt", "B", "C", "z", "A", "D", "dt_bias", "before"};
  for (int i = 0; i < kArrays; ++i) {
    const std::string name = o.name() + " d" + names[i];
    reference::expect_gradient(name, q.in[static_cast<size_t>(i)], [&] { return q.objective(); }, i != kBefore);
  }
}

TEST(Mamba1ScanGradReference, EqualsComplexStep) {
  for (const Options& o : {Options{1, 1}, Options{3, 5}, Options{5, 2}}) expect_right(o, {1, 0, 5, 2, 9});
}

TEST(Mamba1ScanGradReference, EqualsComplexStepWithEveryOption) {
  for (int i = 0; i < 16; ++i) {
    expect_right({3, 4, (i & 1) != 0, (i & 2) != 0, (i & 4) != 0, (i & 8) != 0}, {4, 3});
  }
}

}  // namespace
}  // namespace krait
