#include "krait/backends/cpu/kernel_testing.h"
#include "krait/kernels/reference/matmul.h"

namespace krait {
namespace {

using namespace testing_util;

// T rows of a weight [N, K], and what is stored before.
struct Problem {
  Problem(int64_t rows, int64_t outputs, int64_t inputs, uint64_t seed)
      : T(rows),
        N(outputs),
        K(inputs),
        dy(Rows::random(T, N, 3, seed)),
        x(Rows::random(T, K, 2, seed + 1)),
        dw(normals(N * K, seed + 2)),
        db(normals(N, seed + 3)) {}
  MatmulGradParams params(std::vector<float>& to_w, std::vector<float>& to_b, int64_t t0, int64_t n) const {
    return {dy.row(t0), dy.ld, x.row(t0), x.ld, to_w.data(), to_b.data(), n, N, K};
  }
  int64_t T, N, K;
  Rows dy, x;
  std::vector<float> dw, db;
};

class MatmulGrad : public testing::TestWithParam<const KernelSet*> {
 protected:
  ThreadPool pool_{2};
};

void expect_matches(const KernelSet& set, ThreadPool& pool, const Problem& q) {
  SCOPED_TRACE(std::string(set.name) + " T " + std::to_string(q.T) + " N " + std::to_string(q.N) + " K " +
               std::to_string(q.K));
  std::vector<float> dw = q.dw, db = q.db;
  dw.push_back(kCanary);
  db.push_back(kCanary);
  set.matmul_grad({&pool}, q.params(dw, db, 0, q.T));
  EXPECT_EQ(dw.back(), kCanary);
  EXPECT_EQ(db.back(), kCanary);
  const std::vector<double> dy = widened(q.dy.data), x = widened(q.x.data);
  std::vector<double> dw_stored = widened(q.dw), db_stored = widened(q.db);
  const MatmulGradParamsOf<double> p{dy.data(),        q.dy.ld, x.data(), q.x.ld, dw_stored.data(),
                                     db_stored.data(), q.T,     q.N,      q.K};
  // The stored value is one product more, with 1.
  std::vector<double> norm_x(static_cast<size_t>(q.K), 1);
  for (int64_t k = 0; k < q.K; ++k) {
    for (int64_t t = 0; t < q.T; ++t) norm_x[static_cast<size_t>(k)] += std::pow(q.x.row(t)[k], 2);
  }
  for (int64_t n = 0; n < q.N; ++n) {
    double squares = 0;
    for (int64_t t = 0; t < q.T; ++t) squares += std::pow(q.dy.row(t)[n], 2);
    const auto bound = [&](double stored, double of_x, double want) {
      return tolerance::matmul(Compute::kF32, q.T + 1, std::sqrt(squares + stored * stored), std::sqrt(of_x),
                               std::fabs(want));
    };
    for (int64_t k = 0; k < q.K; ++k) {
      const auto i = static_cast<size_t>(n * q.K + k);
      const double want = reference::matmul_grad_element(p, n, k);
      expect_near(dw[i], want, bound(dw_stored[i], norm_x[static_cast<size_t>(k)], want), "dw " + std::to_string(i));
    }
    const auto i = static_cast<size_t>(n);
    const double want = reference::matmul_grad_bias(p, n);
    expect_near(db[i], want, bound(db_stored[i], static_cast<double>(q.T + 1), want), "db " + std::to_string(i));
  }
}

TEST_P(MatmulGrad, MatchesReferenceAtAnySize) {
  for (const int64_t T : {0, 1, 5, 257, 530}) {
    for (const int64_t N : {1, 2, 7, 12, 25, 100}) {
      for (const int64_t K : {1, 15, 16, 17, 48, 130}) expect_matches(*GetParam(), pool_, Problem(T, N, K, 1));
    }
  }
  expect_matches(*GetParam(), pool_, Problem(40, 1600, 33, 2));  // more rows than are packed at a time
}

// Time is summed in order from the stored value: calls of any lengths, and threads, do not show.
TEST_P(MatmulGrad, TrapB9_CallsAndThreadsDoNotShow) {
  const Problem q(600, 101, 75, 3);
  std::vector<float> dw = q.dw, db = q.db;
  GetParam()->matmul_grad({&pool_}, q.params(dw, db, 0, q.T));
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    std::vector<float> dw_parts = q.dw, db_parts = q.db;
    int64_t t = 0;
    for (const int64_t n : {1, 0, 255, 17, 300, 27}) {
      GetParam()->matmul_grad({&pool}, q.params(dw_parts, db_parts, t, n));
      t += n;
    }
    ASSERT_EQ(t, q.T);
    EXPECT_EQ(dw_parts, dw) << threads;
    EXPECT_EQ(db_parts, db) << threads;
  }
}

TEST_P(MatmulGrad, EachGradientAlone) {
  const Problem q(20, 30, 40, 4);
  std::vector<float> dw = q.dw, db = q.db, dw_alone = q.dw, db_alone = q.db;
  GetParam()->matmul_grad({&pool_}, q.params(dw, db, 0, q.T));
  MatmulGradParams p = q.params(dw_alone, db_alone, 0, q.T);
  p.db = nullptr;
  GetParam()->matmul_grad({&pool_}, p);
  EXPECT_EQ(dw_alone, dw);
  EXPECT_EQ(db_alone, q.db);
  p = q.params(dw_alone, db_alone, 0, q.T);
  p.dw = nullptr;
  GetParam()->matmul_grad({&pool_}, p);
  EXPECT_EQ(dw_alone, dw);
  EXPECT_EQ(db_alone, db);
}

TEST_P(MatmulGrad, TrapB1_OffsetsBeyond32Bits) {
  const int64_t ld = (int64_t{1} << 31) + 32;
  const HugeFloats far_dy(3 * ld), far_x(3 * ld);
  if (far_dy.data == nullptr || far_x.data == nullptr) GTEST_SKIP() << "no address space for 50 GB";
  const Problem q(3, 20, 30, 5);
  std::vector<float> dw = q.dw, db = q.db, dw_far = q.dw, db_far = q.db;
  GetParam()->matmul_grad({&pool_}, q.params(dw, db, 0, 3));
  for (int64_t t = 0; t < 3; ++t) {
    std::copy_n(q.dy.row(t), q.N, far_dy.data + t * ld);
    std::copy_n(q.x.row(t), q.K, far_x.data + t * ld);
  }
  GetParam()->matmul_grad({&pool_}, {far_dy.data, ld, far_x.data, ld, dw_far.data(), db_far.data(), 3, q.N, q.K});
  EXPECT_EQ(dw_far, dw);
  EXPECT_EQ(db_far, db);
}

INSTANTIATE_TEST_SUITE_P(Kernels, MatmulGrad, testing::ValuesIn(cpu_kernel_sets()), set_name);

}  // namespace
}  // namespace krait
