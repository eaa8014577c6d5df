#include "krait/kernels/reference/cross_entropy.h"

#include "krait/kernels/reference/complex_step.h"

namespace krait::reference {
namespace {

constexpr int64_t kRows = 5, kIds = 7, kColumns = 9, kLd = 11;

template <class Real>
CrossEntropyParamsOf<Real> params(std::vector<Real>& logits, const int32_t* target, const float* weight, bool grad,
                                  std::vector<Real>& losses) {
  losses.assign(2 * kRows, Real(-1));
  return {logits.data(),         kLd,   kColumns, target, weight, 0.25f, 0.125f, grad, losses.data(),
          losses.data() + kRows, kRows, kIds};
}

// Of the loss that the contract states, with rows that take no part and logits too large to exponentiate.
TEST(CrossEntropy, ComplexStep) {
  const int32_t target[] = {2, 6, -1, 0, 3};
  const float weight[] = {1, 0.5f, 1, 0, 2};
  for (const float* weights : {static_cast<const float*>(nullptr), weight}) {
    StepInput logits(kRows * kLd, 1, 3, 2000);
    std::vector<double> losses, gradient = logits.value;
    const auto p = params(gradient, target, weights, true, losses);
    for (int64_t t = 0; t < kRows; ++t) cross_entropy_row(p, t);
    for (int64_t t = 0; t < kRows; ++t) {
      const double* row = &gradient[static_cast<size_t>(t * kLd)];
      for (int64_t v = kIds; v < kColumns; ++v) EXPECT_EQ(row[v], 0);
      for (int64_t v = kColumns; v < kLd; ++v) EXPECT_EQ(row[v], logits.value[static_cast<size_t>(t * kLd + v)]);
    }
    for (int64_t t = 0; t < kRows; ++t) {
      for (int64_t v = 0; v < kLd; ++v) {
        const auto i = static_cast<size_t>(t * kLd + v);
        logits.gradient[i] = logits.before[i] + (v < kColumns ? gradient[i] : 0);
      }
    }
    expect_gradient("logits", logits, [&] {
      std::vector<Complex> x = logits.complex, out;
      const auto q = params(x, target, weights, false, out);
      Complex loss = 0;
      for (int64_t t = 0; t < kRows; ++t) {
        cross_entropy_row(q, t);
        const double w = weights != nullptr ? static_cast<double>(weights[t]) : 1;
        const Complex lse = q.lse_out[t];
        loss += w * (q.nll[t] + static_cast<double>(q.z_loss) * lse * lse) * static_cast<double>(q.scale);
      }
      EXPECT_EQ(x, logits.complex);
      return loss;
    });
  }
}

TEST(CrossEntropy, SaysWhatTheLossIs) {
  const int32_t target[] = {2, 6, -1, 0, 3};
  std::vector<double> logits(kRows * kLd, 0.0), losses;
  logits[2] = std::log(3.0);
  const auto p = params(logits, target, nullptr, false, losses);
  for (int64_t t = 0; t < kRows; ++t) cross_entropy_row(p, t);
  EXPECT_NEAR(p.nll[0], std::log(9.0 / 3), 1e-15);
  EXPECT_NEAR(p.lse_out[0], std::log(9.0), 1e-15);
  EXPECT_NEAR(p.nll[1], std::log(7.0), 1e-15);
  EXPECT_EQ(p.nll[2], 0);
  EXPECT_EQ(p.lse_out[2], 0);
}

}  // namespace
}  // namespace krait::reference
