#include "krait/serve/cache/prefix_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "krait/core/error.h"
#include "krait/core/rng.h"
#include "krait/serve/cache/state_key.h"
#include "krait/serve/cache/test_state.h"

namespace krait::serve {
namespace {

using Ids = std::vector<int32_t>;
using std::chrono::seconds;

const PrefixRoot kRoot = beginning_of(kTestModel);

// What the cache shall do, without a tree: every mark in a list, every lookup by comparison with all of them.
class Model {
 public:
  struct Mark {
    std::chrono::nanoseconds used{};
    bool state = false;
    MissReason lost = MissReason::kNone;
    int64_t order = 0;
  };

  explicit Model(seconds ttl) : ttl_(ttl) {}

  void expire(std::chrono::nanoseconds now) {
    for (auto& [tenant, marks] : tenants_) {
      for (auto it = marks.begin(); it != marks.end();) {
        Mark& m = it->second;
        if (m.state && m.used + ttl_ <= now) m = {m.used + ttl_, false, MissReason::kExpired};
        it = !m.state && m.used + ttl_ <= now ? marks.erase(it) : std::next(it);
      }
    }
  }
  void put(const std::string& tenant, const Ids& ids, std::chrono::nanoseconds now) {
    tenants_[tenant][ids] = {now, true, MissReason::kNone, ++order_};
  }
  void erase(const std::string& tenant, const Ids& ids) { tenants_[tenant].erase(ids); }
  void erase_tenant(const std::string& tenant) { tenants_.erase(tenant); }
  void evict_oldest(std::chrono::nanoseconds now) {
    Mark* oldest = nullptr;
    for (auto& [tenant, marks] : tenants_) {
      for (auto& [ids, m] : marks) {
        if (m.state && (oldest == nullptr || m.order < oldest->order)) oldest = &m;
      }
    }
    *oldest = {now, false, MissReason::kEvicted};
  }
  int64_t states() const {
    int64_t n = 0;
    for (const auto& [tenant, marks] : tenants_) {
      n += std::ranges::count_if(marks, [](const auto& m) { return m.second.state; });
    }
    return n;
  }
  PrefixHit find(const std::string& tenant, const Ids& ids, std::chrono::nanoseconds now) {
    PrefixHit hit;
    Mark* best = nullptr;
    int64_t lost_at = -1;
    MissReason lost = MissReason::kNone;
    for (auto& [have, m] : tenants_[tenant]) {
      const auto agree = std::mismatch(have.begin(), have.end(), ids.begin(), ids.end()).first - have.begin();
      hit.known = std::max<int64_t>(hit.known, agree);
      if (agree < std::ssize(have)) continue;
      if (m.state && std::ssize(have) > hit.length) {
        hit.length = std::ssize(have);
        best = &m;
      }
      if (!m.state && std::ssize(have) > lost_at) {
        lost_at = std::ssize(have);
        lost = m.lost;
      }
    }
    if (best != nullptr) {
      best->used = now;
      best->order = ++order_;
    }
    hit.reason = hit.length == std::ssize(ids) ? MissReason::kNone
                 : lost_at > hit.length        ? lost
                 : hit.known > hit.length      ? MissReason::kDiverged
                                               : MissReason::kUnknown;
    return hit;
  }

 private:
  seconds ttl_;
  std::map<std::string, std::map<Ids, Mark>> tenants_;
  int64_t order_ = 0;
};

PrefixMark mark_of(std::span<const int32_t> ids) {
  PrefixHasher hasher;
  hasher.add(ids);
  return hasher.mark();
}

Ids random_ids(Rng& rng, uint64_t alphabet) {
  Ids ids(1 + rng.below(12));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(alphabet));
  return ids;
}

void expect_same(const PrefixHit& got, const PrefixHit& want, const Ids& ids) {
  ASSERT_EQ(got.length, want.length);
  ASSERT_EQ(got.known, want.known);
  ASSERT_EQ(got.reason, want.reason) << name_of(got.reason) << " " << name_of(want.reason);
  ASSERT_EQ(got.state != nullptr, got.length > 0);
  if (got.state == nullptr) return;
  const auto prefix = test_state(std::span(ids).first(static_cast<size_t>(got.length)));
  ASSERT_EQ(got.state->head.history, prefix->head.history);
}

// Random operations of three tenants against the model. A budget of 0: none.
void fuzz(uint64_t seed, int operations, int64_t budget) {
  SCOPED_TRACE(seed);
  TestClock clock;
  PrefixCacheOptions options;
  options.ttl = seconds(50);
  if (budget > 0) options.max_bytes = budget;
  PrefixCache cache(options, clock);
  Model model(options.ttl);
  Rng rng(seed);
  const auto evict_as_many = [&] {  // the model does not know sizes, but which must go first
    while (model.states() > cache.stats().states) model.evict_oldest(clock.steady());
    ASSERT_EQ(model.states(), cache.stats().states);
    if (budget > 0) {
      ASSERT_LE(cache.stats().bytes, budget);
    }
  };
  for (int i = 0; i < operations; ++i) {
    const std::string tenant(1, static_cast<char>('a' + rng.below(3)));
    const Ids ids = random_ids(rng, 2 + rng.below(2));
    const uint64_t what = rng.below(100);
    // With marks or without, of places that are known or not: the answers are the same.
    const PrefixMark begin = mark_of(std::span(ids).first(rng.below(ids.size() + 1))), end = mark_of(ids);
    const PrefixMark* from = rng.below(2) == 0 ? &begin : nullptr;
    const PrefixMark* name = rng.below(2) == 0 ? &end : nullptr;
    model.expire(clock.steady());
    if (what < 40) {
      cache.put(tenant, ids, test_state(ids, budget > 0 ? 4000 : 4), kRoot, from, name);
      model.put(tenant, ids, clock.steady());
      evict_as_many();
    } else if (what < 90) {
      expect_same(cache.find(tenant, ids, kRoot, from), model.find(tenant, ids, clock.steady()), ids);
    } else if (what < 94) {
      cache.expire();
      cache.erase(tenant, ids, kRoot);
      model.erase(tenant, ids);
    } else if (what < 99) {
      clock.pass(seconds(1 + rng.below(8)));
      cache.expire();
    } else if (rng.below(10) == 0) {
      cache.erase_tenant(tenant);
      model.erase_tenant(tenant);
    }
    if (testing::Test::HasFatalFailure()) return;
  }
  clock.pass(seconds(101));
  cache.expire();
  const PrefixCacheStats s = cache.stats();
  EXPECT_EQ(s.states, 0);
  EXPECT_EQ(s.nodes, 0);
  EXPECT_EQ(s.bytes, 0);
}

TEST(PrefixCache, IsTheBruteForceMap) {
  for (uint64_t seed = 1; seed <= 20; ++seed) fuzz(seed, 1000, 0);
}

// Trap E6: whatever is put, looked up, pushed out and forgotten, in any order: a state that is found has read exactly
// the tokens it is found for, and one that has not is never taken in.
TEST(PrefixCache, TrapE6_EvictionFuzz) {
  for (uint64_t seed = 100; seed < 110; ++seed) fuzz(seed, 1000, 800'000);
}

TEST(PrefixCache, TrapE6_OnlyStatesOfExactlyTheseTokens) {
  TestClock clock;
  PrefixCache cache({}, clock);
  const Ids ids = {1, 2, 3, 4};
  const auto refused = [&](std::shared_ptr<const State> s) {
    try {
      cache.put("t", ids, std::move(s), kRoot);
      ADD_FAILURE() << "taken";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInternal);
    }
  };
  refused(test_state(Ids{1, 2, 3}));        // not complete
  refused(test_state(Ids{1, 2, 3, 5}));     // other tokens
  refused(test_state(Ids{1, 2, 3, 4, 5}));  // further
  EXPECT_EQ(cache.stats().bytes, 0);        // and no trace is left
  EXPECT_EQ(cache.find("t", ids, kRoot).known, 0);
  cache.put("t", ids, test_state(ids), kRoot);
  EXPECT_EQ(cache.find("t", ids, kRoot).reason, MissReason::kNone);
}

// Trap E5: with the state that `known` asks for, the third request with a shared prefix reuses all of it, however
// short or long prefix and tail are.
TEST(PrefixCache, TrapE5_ThirdRequestReusesTheSharedPrefix) {
  for (const size_t prefix : {50, 500, 1500, 6476}) {
    for (const size_t tail : {10, 400, 1300}) {
      TestClock clock;
      PrefixCache cache({}, clock);
      for (int32_t request = 0; request < 5; ++request) {
        Ids ids(prefix + tail, 1000 + request);
        std::iota(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(prefix), 0);
        const PrefixHit hit = cache.find("t", ids, kRoot);
        EXPECT_EQ(hit.known, request == 0 ? 0 : prefix);
        EXPECT_EQ(hit.length, request < 2 ? 0 : prefix);
        EXPECT_EQ(hit.reason, request == 1 ? MissReason::kDiverged : MissReason::kUnknown);
        if (hit.known > hit.length) {
          const auto shared = std::span(ids).first(static_cast<size_t>(hit.known));
          cache.put("t", shared, test_state(shared), kRoot);
        }
        cache.put("t", ids, test_state(ids), kRoot);
      }
    }
  }
}

// Trap E7: two tenants with the same tokens never see each other's states, nor what the other has read.
TEST(PrefixCache, TrapE7_TenantsNeverSeeEachOther) {
  TestClock clock;
  PrefixCache cache({}, clock);
  Rng rng(7);
  std::map<std::string, std::vector<std::shared_ptr<const State>>> own;
  for (int i = 0; i < 2000; ++i) {
    const std::string tenant = rng.below(2) == 0 ? "a" : "b";
    const Ids ids = random_ids(rng, 2);
    if (rng.below(3) == 0) {
      own[tenant].push_back(test_state(ids));
      cache.put(tenant, ids, own[tenant].back(), kRoot);
    } else if (const PrefixHit hit = cache.find(tenant, ids, kRoot); hit.state != nullptr) {
      ASSERT_NE(std::ranges::find(own[tenant], hit.state), own[tenant].end());
    }
  }
  cache.erase_tenant("a");
  cache.put("b", Ids{9, 9, 9}, test_state(Ids{9, 9, 9}), kRoot);
  const PrefixHit hit = cache.find("a", Ids{9, 9, 9}, kRoot);
  EXPECT_EQ(hit.state, nullptr);
  EXPECT_EQ(hit.known, 0);
  EXPECT_EQ(hit.reason, MissReason::kUnknown);
}

// Trap E11: the budget holds at every moment, and after everything is forgotten nothing is left.
TEST(PrefixCache, TrapE11_BudgetHoldsAndNothingStays) {
  TestClock clock;
  PrefixCacheOptions options;
  options.max_bytes = 1 << 20;
  PrefixCache cache(options, clock);
  std::vector<std::weak_ptr<const State>> all;
  Rng rng(11);
  for (int i = 0; i < 1000; ++i) {
    const Ids ids = random_ids(rng, 50);
    auto s = test_state(ids, 5000);  // 20 kB
    all.push_back(s);
    cache.put("t", ids, std::move(s), kRoot);
    ASSERT_LE(cache.stats().bytes, options.max_bytes);
  }
  const PrefixCacheStats s = cache.stats();
  EXPECT_GE(s.states, 40);
  EXPECT_GT(s.evictions, 900);
  EXPECT_EQ(std::ranges::count_if(all, [](const auto& w) { return !w.expired(); }), s.states);
  cache.erase_tenant("t");
  EXPECT_EQ(cache.stats().bytes, 0);
  EXPECT_EQ(cache.stats().nodes, 0);
  EXPECT_TRUE(std::ranges::all_of(all, [](const auto& w) { return w.expired(); }));
  const Ids big = {1, 2};
  cache.put("t", big, test_state(big, 1 << 20), kRoot);  // larger than the budget: not kept, and the lookup says so
  EXPECT_EQ(cache.find("t", big, kRoot).reason, MissReason::kEvicted);
  EXPECT_LE(cache.stats().bytes, options.max_bytes);
}

TEST(PrefixCache, SpillsAndFetches) {
  TestClock clock;
  std::map<std::string, State> slower;
  PrefixCacheOptions options;
  options.max_bytes = 100'000;
  bool corrupt = false;
  options.spill = [&](const std::string& key, const State& s) { slower.emplace(key, s); };
  options.fetch = [&](const std::string& key) -> std::shared_ptr<const State> {
    if (corrupt) fail_data("corrupt");
    const auto it = slower.find(key);
    return it == slower.end() ? nullptr : std::make_shared<State>(it->second);
  };
  PrefixCache cache(options, clock);
  const Ids a = {1, 2, 3}, b = {1, 2, 3, 4}, c = {5};
  for (const Ids& ids : {a, b, c}) cache.put("t", ids, test_state(ids, 10'000), kRoot);  // two fit
  EXPECT_EQ(cache.stats().spills, 1);
  EXPECT_EQ(cache.find("t", a, kRoot).reason, MissReason::kNone);  // from the slower tier; pushes b out
  EXPECT_EQ(cache.stats().fetches, 1);
  EXPECT_EQ(cache.find("t", c, kRoot).length, 1);
  corrupt = true;
  const PrefixHit hit = cache.find("t", b, kRoot);
  EXPECT_EQ(hit.length, 3);
  EXPECT_EQ(hit.reason, MissReason::kCorrupt);
  corrupt = false;
  slower.clear();
  cache.put("t", b, test_state(b, 10'000), kRoot);
  slower.clear();
  EXPECT_EQ(cache.find("u", a, kRoot).length, 0);
}

// What was named is spilled under its name; a walk over its tokens finds it as well.
TEST(PrefixCache, NamedStatesAreSpilledUnderTheirNames) {
  TestClock clock;
  std::map<std::string, State> slower;
  PrefixCacheOptions options;
  options.max_bytes = 100'000;
  options.spill = [&](const std::string& key, const State& s) { slower.emplace(key, s); };
  options.fetch = [&](const std::string& key) -> std::shared_ptr<const State> {
    const auto it = slower.find(key);
    return it == slower.end() ? nullptr : std::make_shared<State>(it->second);
  };
  PrefixCache cache(options, clock);
  const Ids a = {1, 2, 3}, b = {1, 2, 3, 4}, c = {5};
  const PrefixMark name_a = mark_of(a), name_b = mark_of(b);
  cache.put("t", a, test_state(a, 10'000), kRoot, nullptr, &name_a);
  cache.put("t", b, test_state(b, 10'000), kRoot, &name_a, &name_b);
  cache.put("t", c, test_state(c, 10'000), kRoot);
  ASSERT_EQ(slower.size(), 1u);
  EXPECT_EQ(slower.begin()->first, state_key("t", kTestModel, name_a.digest));
  EXPECT_EQ(cache.find("t", a, kRoot, &name_a).reason, MissReason::kNone);
  EXPECT_EQ(cache.find("t", b, kRoot).length, 4);
  cache.erase_tenant("t");
  EXPECT_EQ(cache.stats().bytes, 0);
}

// The cost of a turn must not grow with the conversation: nodes before the mark are not even looked at.
TEST(PrefixCache, NothingBeforeTheMarkIsLookedAt) {
  TestClock clock;
  PrefixCache cache({}, clock);
  const Ids ids = {1, 2, 3, 4, 5};
  const PrefixMark three = mark_of(std::span(ids).first(3)), five = mark_of(ids);
  cache.put("t", std::span(ids).first(3), test_state(std::span(ids).first(3)), kRoot, nullptr, &three);
  cache.put("t", ids, test_state(ids), kRoot, &three, &five);
  const Ids other = {9, 9, 9, 4, 5, 6};  // not what the mark stands for: only a walk from there finds anything
  EXPECT_EQ(cache.find("t", other, kRoot, &three).length, 5);
  EXPECT_EQ(cache.find("t", other, kRoot, &five).length, 5);
  EXPECT_EQ(cache.find("t", other, kRoot).length, 0);
  cache.erase("t", std::span(ids).first(3), kRoot);
  EXPECT_EQ(cache.find("t", ids, kRoot, &three).length, 5);  // the mark has gone: from the beginning
}

TEST(PrefixCache, ExpiredStatesAreTold) {
  TestClock clock;
  PrefixCacheOptions options;
  options.ttl = seconds(10);
  PrefixCache cache(options, clock);
  const Ids ids = {1, 2};
  cache.put("t", ids, test_state(ids), kRoot);
  clock.pass(seconds(9));
  EXPECT_EQ(cache.find("t", ids, kRoot).length, 2);  // a use
  clock.pass(seconds(9));
  EXPECT_EQ(cache.find("t", ids, kRoot).length, 2);
  clock.pass(seconds(10));
  EXPECT_EQ(cache.find("t", ids, kRoot).reason, MissReason::kExpired);
  clock.pass(seconds(10));
  EXPECT_EQ(cache.find("t", ids, kRoot).reason, MissReason::kUnknown);  // forgotten altogether
}

// A conversation that began with a state from outside: its tokens are counted from there, and are nobody else's.
TEST(PrefixCache, RootsAreApart) {
  TestClock clock;
  PrefixCache cache({}, clock);
  const Ids before = {7, 8, 9}, after = {1, 2}, all = {7, 8, 9, 1, 2};
  const auto outside = test_state(before);
  const PrefixRoot root{"outside", 3, outside->head.history.hash(), kTestModel};
  cache.put("t", {}, outside, root);
  cache.put("t", after, test_state(all), root);
  EXPECT_EQ(cache.find("t", after, root).length, 5);
  EXPECT_EQ(cache.find("t", Ids{1, 3}, root).length, 3);
  EXPECT_EQ(cache.find("t", Ids{1, 3}, root).known, 4);
  EXPECT_EQ(cache.find("t", after, kRoot).known, 0);
  EXPECT_EQ(cache.find("t", all, kRoot).known, 0);
}

// Trap E9: an adapter makes another model. What one has read is nothing to another, in either tier.
TEST(PrefixCache, TrapE9_ModelsHaveNothingInCommon) {
  TestClock clock;
  std::map<std::string, State> slower;
  PrefixCacheOptions options{.max_bytes = 50'000, .ttl = seconds(60), .spill = {}, .fetch = {}};
  options.spill = [&](const std::string& key, const State& s) { slower.insert_or_assign(key, s); };
  options.fetch = [&](const std::string& key) -> std::shared_ptr<const State> {
    const auto it = slower.find(key);
    return it == slower.end() ? nullptr : std::make_shared<State>(it->second);
  };
  PrefixCache cache(options, clock);
  const Ids ids = {1, 2, 3};
  constexpr uint64_t kOther = kTestModel + 1;
  const PrefixRoot other = beginning_of(kOther);
  const auto mine = test_state(ids, 10'000), its = test_state(ids, 10'000, kOther);  // one fits
  EXPECT_THROW(cache.put("t", ids, mine, other), Error);
  cache.put("t", ids, mine, kRoot);
  EXPECT_EQ(cache.find("t", ids, other).known, 0);
  cache.put("t", ids, its, other);  // pushes the first one out
  EXPECT_EQ(cache.stats().spills, 1);
  EXPECT_TRUE(*cache.find("t", ids, kRoot).state == *mine);
  EXPECT_TRUE(*cache.find("t", ids, other).state == *its);
  cache.erase("t", ids, kRoot);
  EXPECT_EQ(cache.find("t", ids, other).length, 3);
  cache.erase_tenant("t");
  EXPECT_EQ(cache.find("t", ids, other).known, 0);
}

// As deep as a long conversation; nothing may recurse.
TEST(PrefixCache, LongPathsAreNotRecursedInto) {
  TestClock clock;
  PrefixCache cache({}, clock);
  Ids ids;
  auto s = std::make_shared<State>(*test_state(ids, 1));
  for (int i = 0; i < 3000; ++i) {
    ids.push_back(i);
    s->head.history.push(i);
    cache.put("t", ids, std::make_shared<State>(*s), kRoot);
  }
  EXPECT_EQ(cache.find("t", ids, kRoot).length, 3000);
  cache.erase_tenant("t");
  EXPECT_EQ(cache.stats().bytes, 0);
}

}  // namespace
}  // namespace krait::serve
