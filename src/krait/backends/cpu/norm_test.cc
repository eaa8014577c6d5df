#include "krait/kernels/reference/norm.h"

#include "krait/backends/cpu/kernel_testing.h"

namespace krait {
namespace {

using namespace testing_util;

constexpr int64_t kSizes[] = {1, 3, 8, 15, 16, 17, 64, 100, 130, 768, 1000};

class Norm : public testing::TestWithParam<const KernelSet*> {
 protected:
  ThreadPool pool_{2};
};

// A norm of T rows in every combination of options, against the oracle at double.
void expect_norm(const KernelSet& set, ThreadPool& pool, NormKind kind, int64_t T, int64_t D, int options) {
  SCOPED_TRACE(std::string(set.name) + " D " + std::to_string(D) + " kind " + std::to_string(static_cast<int>(kind)) +
               " options " + std::to_string(options));
  const Rows x = Rows::random(T, D, 2, 1, 1, 0.5);
  const std::vector<float> w = normals(D, 2), b = normals(D, 3), residual = normals(T * D, 4);
  std::vector<float> sum = residual;
  Rows y(T, D, 3);
  NormParams p{kind, x.row(0), x.ld, nullptr, nullptr, nullptr, 1e-5f, y.row(0), y.ld, T, D};
  if ((options & 1) != 0) p.residual = sum.data();
  if ((options & 2) != 0) p.w = w.data();
  if ((options & 4) != 0) p.b = b.data();
  set.norm({&pool}, p);
  y.expect_gaps_untouched();
  if (p.residual != nullptr) {
    for (int64_t i = 0; i < T * D; ++i) {
      EXPECT_EQ(sum[static_cast<size_t>(i)], residual[static_cast<size_t>(i)] + x.row(i / D)[i % D]);
    }
    p.residual = const_cast<float*>(residual.data());  // only read by the oracle
  }
  std::vector<double> r(static_cast<size_t>(D)), want(r.size());
  for (int64_t t = 0; t < T; ++t) {
    reference::norm_row(p, t, r.data(), want.data());
    double mean = 0, mean_abs = 0, variance = 0;
    for (const double v : r) mean += v / static_cast<double>(D), mean_abs += std::fabs(v) / static_cast<double>(D);
    if (kind == NormKind::kRms) mean = 0;
    for (const double v : r) variance += (v - mean) * (v - mean) / static_cast<double>(D);
    const double scale = 1 / std::sqrt(variance + static_cast<double>(p.eps));
    for (int64_t d = 0; d < D; ++d) {
      const auto i = static_cast<size_t>(d);
      const double scale_w = scale * (p.w != nullptr ? std::fabs(w[i]) : 1.0);
      // r rounds once when the residual is added: as if the mean had moved by u·|r|.
      const double moved = (kind == NormKind::kLayer ? mean_abs : 0) + (p.residual != nullptr ? std::fabs(r[i]) : 0);
      const double bound =
          tolerance::norm(D, std::fabs(r[i] - mean) * scale_w, scale_w, moved, std::fabs(want[i]) + std::fabs(b[i]));
      expect_near(y.row(t)[d], want[i], bound, "row " + std::to_string(t) + " column " + std::to_string(d));
    }
  }
}

TEST_P(Norm, MatchesReference) {
  for (const int64_t D : kSizes) {
    for (int options = 0; options < 8; ++options) {
      expect_norm(*GetParam(), pool_, NormKind::kRms, 3, D, options);
      expect_norm(*GetParam(), pool_, NormKind::kLayer, 3, D, options);
    }
  }
}

// A variance far below eps, and a mean far above the deviations.
TEST_P(Norm, EpsilonAndMeanDominate) {
  const std::vector<float> tiny(64, 1e-4f);
  float y[64];
  GetParam()->norm({&pool_}, {NormKind::kRms, tiny.data(), 64, nullptr, nullptr, nullptr, 1e-6f, y, 64, 1, 64});
  EXPECT_NEAR(y[5], 1e-4 / std::sqrt(1e-8 + 1e-6), 1e-7);
  std::vector<float> far(64);
  for (size_t i = 0; i < 64; ++i) far[i] = 4096 + (i % 2 == 0 ? 1.0f : -1.0f);
  GetParam()->norm({&pool_}, {NormKind::kLayer, far.data(), 64, nullptr, nullptr, nullptr, 0, y, 64, 1, 64});
  for (int i = 0; i < 64; ++i) EXPECT_NEAR(y[i], i % 2 == 0 ? 1 : -1, 1e-6);
}

// The exactness contract: a row's bits do not depend on the rows beside it, its place, or the threads.
TEST_P(Norm, RowsAreInvariant) {
  for (const int64_t D : {int64_t{37}, int64_t{768}}) {
    constexpr int64_t kRows = 400;
    const Rows x = Rows::random(kRows, D, 0, 6), z = Rows::random(kRows, D, 0, 7);
    const std::vector<float> w = normals(D, 8);
    std::vector<float> alone(static_cast<size_t>(kRows * D)), gated(alone.size()), y(alone.size());
    for (int64_t t = 0; t < kRows; ++t) {
      GetParam()->norm(
          {&pool_}, {NormKind::kLayer, x.row(t), D, nullptr, w.data(), nullptr, 1e-5f, alone.data() + t * D, D, 1, D});
      GetParam()->gated_norm({&pool_},
                             {x.row(t), D, z.row(t), D, w.data(), 1e-5f, false, gated.data() + t * D, D, 1, D, 1});
    }
    for (const int threads : {1, 2, 3}) {
      ThreadPool pool(threads);
      GetParam()->norm({&pool},
                       {NormKind::kLayer, x.row(0), D, nullptr, w.data(), nullptr, 1e-5f, y.data(), D, kRows, D});
      EXPECT_EQ(y, alone);
      GetParam()->gated_norm({&pool}, {x.row(0), D, z.row(0), D, w.data(), 1e-5f, false, y.data(), D, kRows, D, 1});
      EXPECT_EQ(y, gated);
    }
  }
}

TEST_P(Norm, OutputMayBeTheInput) {
  for (const int64_t D : kSizes) {
    Rows x = Rows::random(4, D, 1, 9);
    const std::vector<float> w = normals(D, 10);
    Rows want(4, D, 1);
    GetParam()->norm({&pool_},
                     {NormKind::kRms, x.row(0), x.ld, nullptr, w.data(), nullptr, 1e-5f, want.row(0), want.ld, 4, D});
    GetParam()->norm({&pool_},
                     {NormKind::kRms, x.row(0), x.ld, nullptr, w.data(), nullptr, 1e-5f, x.row(0), x.ld, 4, D});
    EXPECT_EQ(x.data, want.data);
    const Rows z = Rows::random(4, D, 1, 11);
    for (const bool norm_first : {false, true}) {
      Rows y = Rows::random(4, D, 1, 12);
      GetParam()->gated_norm(
          {&pool_}, {y.row(0), y.ld, z.row(0), z.ld, w.data(), 1e-5f, norm_first, want.row(0), want.ld, 4, D, 1});
      GetParam()->gated_norm({&pool_},
                             {y.row(0), y.ld, z.row(0), z.ld, w.data(), 1e-5f, norm_first, y.row(0), y.ld, 4, D, 1});
      EXPECT_EQ(y.data, want.data);
    }
  }
}

// Traps C2, C3: both orders of gate and norm, and the norm within each group.
TEST_P(Norm, TrapC3_GatedNormMatchesReferenceForEveryGrouping) {
  for (const int64_t D : {1, 24, 60, 120, 384, 1536}) {
    for (const int64_t G : {1, 2, 3, 8, 12}) {
      if (D % G != 0) continue;
      for (const bool norm_first : {false, true}) {
        SCOPED_TRACE(std::string(GetParam()->name) + " D " + std::to_string(D) + " G " + std::to_string(G));
        const Rows y = Rows::random(2, D, 2, 13), z = Rows::random(2, D, 1, 14, 2);
        const std::vector<float> w = normals(D, 15);
        Rows out(2, D, 3);
        const GatedNormParams p{y.row(0),   y.ld,       z.row(0), z.ld, w.data(), 1e-5f,
                                norm_first, out.row(0), out.ld,   2,    D,        G};
        GetParam()->gated_norm({&pool_}, p);
        out.expect_gaps_untouched();
        std::vector<double> want(static_cast<size_t>(D));
        for (int64_t t = 0; t < 2; ++t) {
          reference::gated_norm_row(p, t, want.data());
          for (int64_t d = 0; d < D; ++d) {
            const double abs = std::fabs(want[static_cast<size_t>(d)]);
            expect_near(out.row(t)[d], want[static_cast<size_t>(d)],
                        tolerance::norm(D / G, abs, 0, 0, 0) + tolerance::silu(abs),
                        "row " + std::to_string(t) + " column " + std::to_string(d));
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Norm, testing::ValuesIn(cpu_kernel_sets()), set_name);

}  // namespace
}  // namespace krait
