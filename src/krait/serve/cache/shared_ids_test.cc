#include "krait/serve/cache/shared_ids.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <thread>
#include <vector>

#include "krait/core/rng.h"

namespace krait::serve {
namespace {

using Ids = std::vector<int32_t>;

Ids list(const SharedIds& s) { return {s.begin(), s.end()}; }

TEST(SharedIds, CopiesGoTheirOwnWays) {
  SharedIds a(Ids{1, 2, 3});
  SharedIds b = a;
  SharedIds c = a.first(2);
  a.append(Ids{4, 5});
  b.append(Ids{6});
  c.append(Ids{7, 8, 9});
  EXPECT_EQ(list(a), (Ids{1, 2, 3, 4, 5}));
  EXPECT_EQ(list(b), (Ids{1, 2, 3, 6}));
  EXPECT_EQ(list(c), (Ids{1, 2, 7, 8, 9}));
  EXPECT_EQ(list(SharedIds()), Ids{});
  EXPECT_EQ(list(c.first(0)), Ids{});
}

// A turn of a server: the request's copy grows first, the conversation's follows with the same ids.
TEST(SharedIds, ThoseThatGrowAlikeShareTheirMemory) {
  SharedIds log(Ids(64, 1));
  SharedIds request = log;
  request.append(Ids{2, 3});
  SharedIds answered = request;
  answered.append(Ids{4});
  const int32_t* there = log.begin();
  log.append(Ids{2, 3, 4, 5});
  EXPECT_EQ(log.begin(), there);
  EXPECT_EQ(request.begin(), there);
  EXPECT_EQ(list(request).size(), 66u);
  EXPECT_EQ(log.end()[-1], 5);
  SharedIds other = answered;
  other.append(Ids{6});  // where the log went on with 5
  EXPECT_NE(other.begin(), there);
  EXPECT_EQ(other.size(), 68u);
}

TEST(SharedIds, AsVectorsAre) {
  Rng rng(7);
  std::vector<std::pair<SharedIds, Ids>> all(1);
  for (int i = 0; i < 3000; ++i) {
    auto one = all[rng.below(all.size())];
    if (rng.below(4) == 0) {
      const size_t n = rng.below(one.second.size() + 1);
      one.first = one.first.first(n);
      one.second.resize(n);
    }
    Ids more(rng.below(20));
    for (int32_t& id : more) id = static_cast<int32_t>(rng.below(2));
    one.first.append(more);
    one.second.insert(one.second.end(), more.begin(), more.end());
    all.push_back(one);
    if (all.size() > 50) all.erase(all.begin() + static_cast<ptrdiff_t>(rng.below(all.size())));
    for (const auto& [shared, vector] : all) ASSERT_EQ(list(shared), vector) << i;
  }
}

TEST(SharedIds, ThreadsReadAndGrowCopies) {
  Ids begin(50);
  std::iota(begin.begin(), begin.end(), 0);
  const SharedIds shared(begin);
  std::vector<SharedIds> grown(4, shared);
  std::vector<std::jthread> threads;
  for (size_t t = 0; t < grown.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int32_t i = 0; i < 200; ++i) {
        grown[t].append(Ids{i < 100 ? i : static_cast<int32_t>(t)});
        ASSERT_EQ(grown[t].end()[-1], i < 100 ? i : static_cast<int32_t>(t));
      }
    });
  }
  threads.clear();
  for (size_t t = 0; t < grown.size(); ++t) {
    EXPECT_EQ(list(grown[t].first(50)), begin);
    EXPECT_EQ(std::count(grown[t].begin() + 150, grown[t].end(), static_cast<int32_t>(t)), 100);
  }
}

}  // namespace
}  // namespace krait::serve
