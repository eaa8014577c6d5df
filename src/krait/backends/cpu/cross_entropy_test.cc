#include "krait/kernels/reference/cross_entropy.h"

#include <limits>

#include "krait/backends/cpu/kernel_testing.h"

namespace krait {
namespace {

using namespace testing_util;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

// T rows of V logits in rows of V + padding columns; every third row has no target, every fifth no weight.
struct Problem {
  Problem(int64_t rows, int64_t ids, int64_t padding, double spread, uint64_t seed)
      : T(rows),
        V(ids),
        logits(Rows::random(rows, ids + padding, 2, seed, spread, 3)),
        weight(normals(rows, seed + 1)) {
    for (int64_t t = 0; t < T; ++t) {
      target.push_back(t % 3 == 2 ? -1 : static_cast<int32_t>((t * 7 + 1) % V));
      if (t % 5 == 4) weight[static_cast<size_t>(t)] = 0;
    }
  }
  CrossEntropyParams params(Rows& x, float* losses, bool grad) const {
    return {x.row(0), x.ld, x.D, target.data(), weight.data(), 0.5f, 0.01f, grad, losses, losses + T, T, V};
  }
  int64_t T, V;
  Rows logits;
  std::vector<int32_t> target;
  std::vector<float> weight;
};

class CrossEntropy : public testing::TestWithParam<const KernelSet*> {
 protected:
  ThreadPool pool_{2};
};

void expect_matches(const KernelSet& set, ThreadPool& pool, const Problem& q, bool grad) {
  SCOPED_TRACE(std::string(set.name) + " V " + std::to_string(q.V));
  Rows got = q.logits;
  std::vector<float> losses(static_cast<size_t>(2 * q.T), kCanary);
  const CrossEntropyParams p = q.params(got, losses.data(), grad);
  set.cross_entropy({&pool}, p);
  got.expect_gaps_untouched();
  std::vector<double> want = widened(q.logits.data), want_losses(losses.size());
  const CrossEntropyParamsOf<double> o{want.data(), p.ldl,    p.columns, p.target,           p.weight,
                                       p.scale,     p.z_loss, grad,      want_losses.data(), want_losses.data() + q.T,
                                       q.T,         q.V};
  for (int64_t t = 0; t < q.T; ++t) {
    reference::cross_entropy_row(o, t);
    const std::string where = "row " + std::to_string(t);
    const auto x = [&](int64_t v) { return static_cast<double>(q.logits.row(t)[v]); };
    // e^(x − max): the difference rounds, and e^ errs by 1 ulp; a sum of V positive terms as in tolerance::matmul.
    double most = x(0), shift = 0, sum = 0;
    for (int64_t v = 1; v < q.V; ++v) most = std::max(most, x(v));
    for (int64_t v = 0; v < q.V; ++v) sum += std::exp(x(v) - most), shift += std::exp(x(v) - most) * (most - x(v));
    const double u = tolerance::kF32Unit;
    const double sum_error = 7 * std::sqrt(static_cast<double>(q.V)) * u + 2 * u + u * shift / sum;  // relative
    const double lse_error = sum_error + 2 * u * std::log(sum) + u * std::fabs(o.lse_out[t]);
    expect_near(p.lse_out[t], o.lse_out[t], lse_error, where + " lse");
    const double far = p.target[t] < 0 ? 0 : most - x(p.target[t]);
    expect_near(p.nll[t], o.nll[t], lse_error + u * (far + std::fabs(o.nll[t])), where + " nll");
    const double z = 2 * static_cast<double>(p.z_loss), softmax_error = sum_error + 8 * u + z * lse_error;
    const double scale = std::fabs(static_cast<double>(p.weight[t]) * static_cast<double>(p.scale));
    for (int64_t v = 0; v < q.logits.D && grad; ++v) {
      const double w = o.logits[t * o.ldl + v];
      const double softmax = v == p.target[t] ? scale * (1 + z * std::fabs(o.lse_out[t])) : std::fabs(w);
      const double exponent = v < q.V ? (most - x(v)) * u : 0;
      expect_near(got.row(t)[v], w, softmax * (softmax_error + exponent) + u * scale + 1e-38,
                  where + " id " + std::to_string(v));
    }
    if (!grad) {
      EXPECT_TRUE(same_bits(got.row(t), q.logits.row(t), q.logits.ld));
    }
  }
}

TEST_P(CrossEntropy, MatchesReferenceAtAnySize) {
  for (const int64_t V : {1, 2, 15, 16, 17, 64, 130, 1000, 8192}) {
    for (const bool grad : {false, true}) {
      expect_matches(*GetParam(), pool_, Problem(7, V, V % 5, 3, 1), grad);
      expect_matches(*GetParam(), pool_, Problem(3, V, 0, 60, 2), grad);  // exponentials from one to nothing
    }
  }
}

// One NaN or infinity among the logits, wherever it stands, must not be passed over.
TEST_P(CrossEntropy, NotANumberShows) {
  for (const int64_t V : {1, 40, 65, 200}) {
    for (const float bad : {kNan, kInf}) {
      for (int64_t at = 0; at < V; at += V < 50 ? 1 : 7) {
        Rows x = Rows::random(2, V, 0, 1);
        x.row(0)[at] = bad;
        const std::vector<int32_t> target(2, 0);
        float losses[4];
        GetParam()->cross_entropy({&pool_},
                                  {x.row(0), V, V, target.data(), nullptr, 1, 0, true, losses, losses + 2, 2, V});
        EXPECT_TRUE(std::isnan(losses[0])) << V << " " << at;
        EXPECT_TRUE(std::isnan(losses[2])) << V << " " << at;
        EXPECT_TRUE(std::isnan(x.row(0)[0])) << V << " " << at;
        EXPECT_TRUE(std::isfinite(losses[1])) << V << " " << at;
      }
    }
    std::vector<float> x(static_cast<size_t>(V), -kInf);  // nothing is possible
    const int32_t target = 0;
    float losses[2];
    GetParam()->cross_entropy({&pool_}, {x.data(), V, V, &target, nullptr, 1, 0, false, losses, losses + 1, 1, V});
    EXPECT_TRUE(std::isnan(losses[0]));
  }
}

// A row that takes no part may hold anything; a forbidden id is one of probability 0.
TEST_P(CrossEntropy, RowsWithoutTargetAndForbiddenIds) {
  Rows x = Rows::random(3, 40, 0, 1);
  x.row(0)[3] = kNan;
  x.row(1)[3] = kNan;
  x.row(2)[3] = -kInf;
  const int32_t target[] = {-100, 1, 1};
  const float weight[] = {1, 0, 1};
  float losses[6];
  GetParam()->cross_entropy({&pool_}, {x.row(0), 40, 40, target, weight, 1, 0, true, losses, losses + 3, 3, 40});
  for (const int i : {0, 1, 3, 4}) EXPECT_EQ(losses[i], 0);
  for (int64_t v = 0; v < 40; ++v) {
    EXPECT_EQ(x.row(0)[v], 0);
    EXPECT_EQ(x.row(1)[v], 0);
  }
  EXPECT_TRUE(std::isfinite(losses[2]));
  EXPECT_EQ(x.row(2)[3], 0);
}

TEST_P(CrossEntropy, RowsAreInvariantAndThreadsDoNotShow) {
  const Problem q(60, 515, 3, 2, 6);
  Rows alone = q.logits;
  std::vector<float> want(static_cast<size_t>(2 * q.T)), got(want.size());
  for (int64_t t = 0; t < q.T; ++t) {
    CrossEntropyParams p = q.params(alone, want.data(), true);
    p.logits += t * p.ldl, p.target += t, p.weight += t, p.nll += t, p.lse_out += t, p.T = 1;
    GetParam()->cross_entropy({&pool_}, p);
  }
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    Rows x = q.logits;
    GetParam()->cross_entropy({&pool}, q.params(x, got.data(), true));
    EXPECT_EQ(x.data, alone.data);
    EXPECT_EQ(got, want);
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, CrossEntropy, testing::ValuesIn(cpu_kernel_sets()), set_name);

}  // namespace
}  // namespace krait
