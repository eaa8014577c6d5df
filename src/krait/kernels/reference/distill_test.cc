#include "krait/kernels/reference/distill.h"

#include "krait/kernels/reference/complex_step.h"

namespace krait::reference {
namespace {

constexpr int64_t kRows = 5, kIds = 7, kLdx = 9, kLdq = 10;

template <class Real>
DistillParamsOf<Real> params(const std::vector<Real>& logits, std::vector<Real>& teacher, const int32_t* target,
                             const float* weight, bool grad, std::vector<Real>& kl) {
  kl.assign(kRows, Real(-1));
  return {logits.data(), kLdx, teacher.data(), kLdq, target, weight, 0.25f, 2.5f, grad, kl.data(), kRows, kIds};
}

// Of the loss that the contract states, with rows that take no part and logits too large to exponentiate.
TEST(Distill, ComplexStep) {
  const int32_t target[] = {2, 6, -1, 0, 3};
  const float weight[] = {1, 0.5f, 1, 0, 2};
  for (const float* weights : {static_cast<const float*>(nullptr), weight}) {
    StepInput logits(kRows * kLdx, 1, 3, 2000);
    const StepInput teacher(kRows * kLdq, 2, 4, -1500);
    std::vector<double> kl, gradient = teacher.value;
    const auto p = params(logits.value, gradient, target, weights, true, kl);
    for (int64_t t = 0; t < kRows; ++t) distill_row(p, t);
    for (int64_t t = 0; t < kRows; ++t) {
      for (int64_t v = kIds; v < kLdq; ++v) {
        const auto i = static_cast<size_t>(t * kLdq + v);
        EXPECT_EQ(gradient[i], teacher.value[i]) << "behind the row";
      }
      for (int64_t v = 0; v < kLdx; ++v) {
        const auto i = static_cast<size_t>(t * kLdx + v);
        logits.gradient[i] = logits.before[i] + (v < kIds ? gradient[static_cast<size_t>(t * kLdq + v)] : 0);
      }
    }
    expect_gradient("logits", logits, [&] {
      std::vector<Complex> q = teacher.complex, out;
      const auto c = params(logits.complex, q, target, weights, false, out);
      Complex loss = 0;
      for (int64_t t = 0; t < kRows; ++t) {
        distill_row(c, t);
        const double w = weights != nullptr ? static_cast<double>(weights[t]) : 1;
        loss += w * c.kl[t] * static_cast<double>(c.scale);
      }
      EXPECT_EQ(q, teacher.complex);
      return loss;
    });
  }
}

TEST(Distill, SaysHowFarTheRowsAreApart) {
  const int32_t target[] = {2, 6, -1, 0, 3};
  std::vector<double> logits(kRows * kLdx, 0.0), teacher(kRows * kLdq, 0.0), kl;
  teacher[2] = 2.5 * std::log(3.0);  // q = 3/9, 1/9 …; p = 1/7
  teacher[kLdq] = teacher[kLdq + 1] = logits[kLdx] = logits[kLdx + 1] = 50;
  const auto p = params(logits, teacher, target, nullptr, true, kl);
  for (int64_t t = 0; t < kRows; ++t) distill_row(p, t);
  EXPECT_NEAR(p.kl[0], 3.0 / 9 * std::log(7 * 3.0 / 9) + 6.0 / 9 * std::log(7 / 9.0), 1e-15);
  EXPECT_NEAR(p.kl[1], 0, 1e-15) << "the same row";
  EXPECT_NEAR(teacher[kLdq], 0, 1e-15);
  EXPECT_EQ(p.kl[2], 0);
}

}  // namespace
}  // namespace krait::reference
