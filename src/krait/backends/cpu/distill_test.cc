#include "krait/kernels/reference/distill.h"

#include <limits>

#include "krait/backends/cpu/kernel_testing.h"
#include "tests/bounded.h"

namespace krait {
namespace {

using namespace testing_util;

// T rows of V logits of student and teacher; every third row has no target, every fifth no weight.
struct Problem {
  Problem(int64_t rows, int64_t ids, double spread, uint64_t seed, float heat = 2)
      : T(rows),
        V(ids),
        temperature(heat),
        logits(Rows::random(rows, ids, 2, seed, spread, 3)),
        teacher(Rows::random(rows, ids, 3, seed + 1, spread, -1)),
        weight(normals(rows, seed + 2)) {
    for (int64_t t = 0; t < T; ++t) target.push_back(t % 3 == 2 ? -1 : static_cast<int32_t>(t % V));
    for (int64_t t = 4; t < T; t += 5) weight[static_cast<size_t>(t)] = 0;
  }
  template <class Real>
  DistillParamsOf<Real> params(const std::vector<Real>& x, std::vector<Real>& q, std::vector<Real>& kl,
                               bool grad) const {
    return {x.data(), logits.ld, q.data(), teacher.ld, target.data(), weight.data(), 0.5f, temperature,
            grad,     kl.data(), T,        V};
  }
  int64_t T, V;
  float temperature;
  Rows logits, teacher;
  std::vector<int32_t> target;
  std::vector<float> weight;
};

class Distill : public testing::TestWithParam<const KernelSet*> {
 protected:
  ThreadPool pool_{2};
};

void expect_matches(const KernelSet& set, ThreadPool& pool, const Problem& p, bool grad) {
  SCOPED_TRACE(std::string(set.name) + " V " + std::to_string(p.V));
  Rows got = p.teacher;
  std::vector<float> kl(static_cast<size_t>(p.T), kCanary);
  set.distill({&pool}, p.params(p.logits.data, got.data, kl, grad));
  got.expect_gaps_untouched();
  const std::vector<Bounded> x(p.logits.data.begin(), p.logits.data.end());
  std::vector<Bounded> want(p.teacher.data.begin(), p.teacher.data.end()), want_kl(kl.size());
  const auto o = p.params(x, want, want_kl, grad);
  for (int64_t t = 0; t < p.T; ++t) reference::distill_row(o, t);
  expect_bounded(kl, want_kl, "kl");
  expect_bounded(got.data, want, "gradient");
  if (!grad) {
    EXPECT_EQ(got.data, p.teacher.data);
  }
}

TEST_P(Distill, MatchesReferenceAtAnySize) {
  for (const int64_t V : {1, 2, 15, 16, 17, 64, 130, 1000, 8192}) {
    for (const bool grad : {false, true}) {
      expect_matches(*GetParam(), pool_, Problem(7, V, 3, 1), grad);
      expect_matches(*GetParam(), pool_, Problem(3, V, 30, 2, 0.5f), grad);  // exponentials from one to nothing
    }
  }
}

// The distance of a row from itself is nothing, and so is its gradient; distances are never below nothing but for
// rounding.
TEST_P(Distill, OfEqualRowsNothingIsLearned) {
  Problem p(6, 500, 4, 3);
  p.teacher = p.logits;
  std::vector<float> kl(6);
  GetParam()->distill({&pool_}, p.params(p.logits.data, p.teacher.data, kl, true));
  for (const float k : kl) EXPECT_NEAR(k, 0, 1e-6);
  for (int64_t t = 0; t < 6; ++t) {
    for (int64_t v = 0; v < 500; ++v) EXPECT_EQ(p.teacher.row(t)[v], 0);
  }
}

TEST_P(Distill, NotANumberShows) {
  for (const bool in_teacher : {false, true}) {
    for (const int64_t at : {0, 5, 39}) {
      Problem p(2, 40, 1, 1);
      (in_teacher ? p.teacher : p.logits).row(0)[at] = std::numeric_limits<float>::quiet_NaN();
      std::vector<float> kl(2);
      GetParam()->distill({&pool_}, p.params(p.logits.data, p.teacher.data, kl, true));
      EXPECT_TRUE(std::isnan(kl[0]));
      EXPECT_TRUE(std::isnan(p.teacher.row(0)[1]));
      EXPECT_TRUE(std::isfinite(kl[1]));
    }
  }
}

TEST_P(Distill, RowsAreInvariantAndThreadsDoNotShow) {
  const Problem p(60, 515, 2, 6);
  Rows alone = p.teacher;
  std::vector<float> want(60), got(60);
  for (int64_t t = 0; t < 60; ++t) {
    DistillParams one = p.params(p.logits.data, alone.data, want, true);
    one.logits += t * one.ldl, one.teacher += t * one.ldt, one.target += t, one.weight += t, one.kl += t, one.T = 1;
    GetParam()->distill({&pool_}, one);
  }
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    Rows q = p.teacher;
    GetParam()->distill({&pool}, p.params(p.logits.data, q.data, got, true));
    EXPECT_EQ(q.data, alone.data);
    EXPECT_EQ(got, want);
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Distill, testing::ValuesIn(cpu_kernel_sets()), set_name);

}  // namespace
}  // namespace krait
