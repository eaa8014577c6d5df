#include "krait/kernels/reference/complex_step.h"
#include "krait/kernels/reference/norm.h"

namespace krait::reference {
namespace {

void expect_norm(NormKind kind, int64_t T, int64_t D, bool with_w, bool with_b) {
  SCOPED_TRACE("kind " + std::to_string(static_cast<int>(kind)) + " T " + std::to_string(T) + " D " +
               std::to_string(D) + " w " + std::to_string(with_w));
  StepInput r(T * (D + 2), 1, 2, 0.5), w(D, 3), b(D, 4);
  const std::vector<double> dy = StepInput::normals(T * D, 5);
  NormGradParamsOf<double> g{};
  g.kind = kind, g.r = r.value.data(), g.ldr = D + 2, g.w = with_w ? w.value.data() : nullptr, g.eps = 1e-2f;
  g.dy = dy.data(), g.lddy = D, g.dr = r.gradient.data(), g.lddr = D + 2, g.T = T, g.D = D;
  std::vector<double> term(static_cast<size_t>(D));
  for (int64_t t = 0; t < T; ++t) {
    norm_grad_row(g, t, term.data());
    for (size_t d = 0; d < term.size(); ++d) {
      w.gradient[d] += term[d];
      b.gradient[d] += dy[static_cast<size_t>(t * D) + d];
    }
  }
  const auto f = [&] {
    NormParamsOf<Complex> p{};
    p.kind = kind, p.x = r.complex.data(), p.ldx = D + 2, p.eps = 1e-2f, p.T = T, p.D = D;
    p.w = with_w ? w.complex.data() : nullptr;
    p.b = with_b ? b.complex.data() : nullptr;
    std::vector<Complex> row(static_cast<size_t>(D)), y(row);
    Complex sum = 0;
    for (int64_t t = 0; t < T; ++t) {
      norm_row<Complex>(p, t, row.data(), y.data());
      for (size_t d = 0; d < y.size(); ++d) sum += dy[static_cast<size_t>(t * D) + d] * y[d];
    }
    return sum;
  };
  expect_gradient("dr", r, f);
  if (with_w) expect_gradient("dw", w, f);
  if (with_b) expect_gradient("db", b, f);
}

TEST(NormGrad, ComplexStep) {
  for (const int64_t D : {1, 2, 7, 16, 33}) {
    for (const bool with_w : {false, true}) {
      expect_norm(NormKind::kRms, 3, D, with_w, false);
      expect_norm(NormKind::kLayer, 3, D, with_w, true);
    }
  }
}

// Traps C2, C3: both orders of gate and norm, and the norm within each group.
TEST(NormGrad, TrapC3_GatedComplexStep) {
  for (const int64_t G : {1, 2, 3}) {
    for (const bool norm_first : {false, true}) {
      constexpr int64_t T = 2, D = 12;
      SCOPED_TRACE("G " + std::to_string(G) + " norm first " + std::to_string(norm_first));
      StepInput y(T * (D + 1), 1), z(T * (D + 3), 2, 2), w(D, 3);
      const std::vector<double> dout = StepInput::normals(T * D, 4);
      GatedNormGradParamsOf<double> g{};
      g.f = {y.value.data(), D + 1, z.value.data(), D + 3, w.value.data(), 1e-2f, norm_first, nullptr, 0, T, D, G};
      g.dout = dout.data(), g.lddout = D;
      g.dy = y.gradient.data(), g.lddy = D + 1;
      g.dz = z.gradient.data(), g.lddz = D + 3;
      std::vector<double> term(D);
      for (int64_t t = 0; t < T; ++t) {
        gated_norm_grad_row(g, t, term.data());
        for (size_t d = 0; d < D; ++d) w.gradient[d] += term[d];
      }
      const auto f = [&] {
        const GatedNormParamsOf<Complex> p{
            y.complex.data(), D + 1, z.complex.data(), D + 3, w.complex.data(), 1e-2f, norm_first, nullptr, 0, T, D, G};
        std::vector<Complex> out(D);
        Complex sum = 0;
        for (int64_t t = 0; t < T; ++t) {
          gated_norm_row<Complex>(p, t, out.data());
          for (size_t d = 0; d < D; ++d) sum += dout[static_cast<size_t>(t * D) + d] * out[d];
        }
        return sum;
      };
      expect_gradient("dy", y, f);
      expect_gradient("dz", z, f);
      expect_gradient("dw", w, f);
    }
  }
}

}  // namespace
}  // namespace krait::reference
