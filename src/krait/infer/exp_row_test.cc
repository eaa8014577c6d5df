#include "krait/infer/exp_row.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "krait/core/rng.h"

namespace krait {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(ExpRow, IsTheExponential) {
  Rng rng(3);
  for (const size_t n : {1, 3, 4, 63, 64, 65, 1000}) {
    for (const double temperature : {1.0, 0.7, 0.01, 100.0}) {
      std::vector<float> logits(n);
      for (float& x : logits) x = static_cast<float>(6 * rng.normal());
      if (n > 5) logits[3] = -kInf, logits[4] = -1e30f;
      const float best = largest(logits);
      EXPECT_EQ(best, *std::max_element(logits.begin(), logits.end()));
      const size_t blocks = (n + kRowBlock - 1) / kRowBlock;
      std::vector<double> weights(blocks * kRowBlock, -1), sums(blocks, -1);
      exp_row(logits, best, temperature, weights, sums);
      for (size_t b = 0; b < blocks; ++b) {
        double sum = 0;
        for (size_t i = b * kRowBlock; i < std::min(n, (b + 1) * kRowBlock); ++i) {
          const double want = std::exp((static_cast<double>(logits[i]) - static_cast<double>(best)) / temperature);
          if (want < 1e-307) {
            ASSERT_LT(weights[i], 1e-306);
          } else {
            ASSERT_NEAR(weights[i] / want, 1, 4.5e-16) << logits[i] << " " << temperature;
          }
          sum += weights[i];
        }
        ASSERT_NEAR(sums[b], sum, 1e-14 * sum);
      }
    }
  }
}

TEST(ExpRow, TheBestIsOneAndWhatIsForbiddenZero) {
  const std::vector<float> logits = {-kInf, 5, -kInf, 5, -3e38f};
  std::vector<double> weights(kRowBlock), sums(1);
  exp_row(logits, 5, 1e-3, weights, sums);
  EXPECT_EQ(weights[1], 1);
  EXPECT_EQ(weights[0], 0);
  EXPECT_EQ(weights[4], 0);
  EXPECT_EQ(sums[0], 2);
}

TEST(ExpRow, LargestTellsWhatIsNoNumber) {
  for (size_t i = 0; i < 11; ++i) {
    std::vector<float> logits(11, -2);
    logits[i] = 7;
    EXPECT_EQ(largest(logits), 7);
    for (const float bad : {kInf, std::nanf(""), -std::nanf("")}) {
      logits[i] = bad;
      EXPECT_TRUE(std::isnan(largest(logits)));
    }
  }
  EXPECT_EQ(largest(std::vector<float>(3, -kInf)), -kInf);
}

}  // namespace
}  // namespace krait
