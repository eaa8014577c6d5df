#include "krait/serve/service/pass_budget.h"

#include <gtest/gtest.h>

namespace krait::serve {
namespace {

// A machine on which a pass takes `writers` · w + prompt tokens · p seconds, and the service on it.
struct Machine {
  double fixed, w, p;
  double seconds(const PassTokens& t) const {
    return fixed + w * static_cast<double>(t.generated) + p * static_cast<double>(t.prompt);
  }
};

TEST(PassBudget, APassStaysBelowTheStallAndPromptsGetOn) {
  for (const Machine m : {Machine{10e-3, 1e-3, 1e-3}, Machine{1e-4, 1e-5, 5e-3}, Machine{20e-3, 1e-3, 1e-5}}) {
    PassBudget budget(3, 256);
    int64_t read = 0;
    for (int i = 0; i < 300; ++i) {
      const int64_t writers = i < 150 ? 4 : 9;
      const int64_t n = budget.next({.reading = 1, .writing = writers, .waiting = 0});
      ASSERT_GE(n, 0);
      ASSERT_LE(n, 256);
      const PassTokens pass{n, writers};
      if (i > 8 && i != 150 && n > 1) {
        EXPECT_LT(m.seconds(pass), 3 * m.seconds({0, writers})) << i << ": " << n;
      }
      budget.passed(pass, m.seconds(pass));
      read += n;
    }
    EXPECT_GE(read, 280) << "at least one token a pass, but for passes that measure";
  }
}

TEST(PassBudget, NobodyWritesFullPasses) {
  PassBudget budget(3, 256);
  EXPECT_EQ(budget.next({.reading = 3, .writing = 0, .waiting = 0}), 256);
  EXPECT_EQ(budget.next({.reading = 3, .writing = 1, .waiting = 0}), 0) << "first the writers alone are timed";
  budget.passed({0, 1}, 1e-3);
  EXPECT_EQ(budget.next({.reading = 3, .writing = 1, .waiting = 0}), 16);
  budget.passed({16, 1}, 3e-3);
  EXPECT_NEAR(static_cast<double>(budget.next({.reading = 3, .writing = 1, .waiting = 0})), 13, 1);
}

TEST(PassBudget, ASimulatedClockThatStandsStill) {
  PassBudget budget(3, 256);
  for (int i = 0; i < 200; ++i) {
    const int64_t n = budget.next({.reading = 1, .writing = 2, .waiting = 0});
    budget.passed({n, 2}, 0);
  }
  EXPECT_GT(budget.next({.reading = 1, .writing = 2, .waiting = 0}), 0);
}

}  // namespace
}  // namespace krait::serve
