#include "krait/kernels/reference/complex_step.h"
#include "krait/kernels/reference/elementwise.h"
#include "krait/kernels/reference/matmul.h"

namespace krait::reference {
namespace {

TEST(ElementwiseGrad, SiluGateComplexStep) {
  constexpr int64_t T = 3, D = 5;
  StepInput a(T * (D + 1), 1), gate(T * (D + 2), 2, 4);
  const std::vector<double> dout = StepInput::normals(T * D, 3);
  SiluGateGradParamsOf<double> g{};
  g.f = {a.value.data(), D + 1, gate.value.data(), D + 2, nullptr, 0, T, D};
  g.dout = dout.data(), g.lddout = D;
  g.da = a.gradient.data(), g.ldda = D + 1;
  g.dgate = gate.gradient.data(), g.lddg = D + 2;
  for (int64_t i = 0; i < T * D; ++i) silu_gate_grad_at(g, i / D, i % D);
  const auto f = [&] {
    const SiluGateParamsOf<Complex> p{a.complex.data(), D + 1, gate.complex.data(), D + 2, nullptr, 0, T, D};
    Complex sum = 0;
    for (int64_t i = 0; i < T * D; ++i) {
      sum += dout[static_cast<size_t>(i)] * silu_gate_at<Complex>(p, i / D, i % D);
    }
    return sum;
  };
  expect_gradient("da", a, f);
  expect_gradient("dgate", gate, f);
}

TEST(MatmulGrad, ComplexStep) {
  constexpr int64_t T = 4, N = 3, K = 5;
  StepInput x(T * K, 1), w(N * K, 2), b(N, 3);
  const std::vector<double> dy = StepInput::normals(T * N, 4);
  const MatmulGradParamsOf<double> g{dy.data(), N, x.value.data(), K, w.gradient.data(), b.gradient.data(), T, N, K};
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t k = 0; k < K; ++k) w.gradient[static_cast<size_t>(n * K + k)] = matmul_grad_element(g, n, k);
    b.gradient[static_cast<size_t>(n)] = matmul_grad_bias(g, n);
  }
  const auto f = [&] {
    Complex sum = 0;
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t n = 0; n < N; ++n) {
        const Complex y = sum_of_products<Complex>(
            K, [&](int64_t k) { return x.complex[static_cast<size_t>(t * K + k)]; },
            [&](int64_t k) { return w.complex[static_cast<size_t>(n * K + k)]; });
        sum += dy[static_cast<size_t>(t * N + n)] * (y + b.complex[static_cast<size_t>(n)]);
      }
    }
    return sum;
  };
  expect_gradient("dw", w, f);
  expect_gradient("db", b, f);
}

}  // namespace
}  // namespace krait::reference
