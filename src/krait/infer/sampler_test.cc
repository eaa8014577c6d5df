#include "krait/infer/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <limits>
#include <map>

#include "krait/core/error.h"
#include "krait/core/rng.h"

namespace krait {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

SamplerParams at(double temperature) {
  SamplerParams p;
  p.temperature = temperature;
  return p;
}

std::vector<float> random_logits(int64_t n, uint64_t seed, double scale = 2) {
  Rng rng(seed);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = static_cast<float>(scale * rng.normal());
  return x;
}

TokenHistory history_of(const std::vector<int32_t>& ids) {
  TokenHistory h;
  h.push(ids);
  return h;
}

std::vector<int32_t> ids_of(const std::vector<TokenLogprob>& d) {
  std::vector<int32_t> ids;
  for (const TokenLogprob& t : d) ids.push_back(t.id);
  return ids;
}

ErrorCode code_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.code();
  }
  return ErrorCode{0};
}

// The definition, by full sorts in double: probabilities of all ids, zero where a token may not be drawn.
std::vector<double> brute_force(const SamplerParams& p, const std::vector<float>& logits,
                                const std::vector<int32_t>& seen) {
  const size_t V = logits.size();
  std::vector<float> l = logits;
  const size_t window =
      p.penalty_window < 0 ? seen.size() : std::min(seen.size(), static_cast<size_t>(p.penalty_window));
  for (size_t id = 0; id < V; ++id) {
    const auto n = std::count(seen.end() - static_cast<int64_t>(window), seen.end(), static_cast<int32_t>(id));
    double v = l[id];
    if (n > 0) v = v < 0 ? v * p.repetition_penalty : v / p.repetition_penalty;
    if (n > 0) v -= p.presence_penalty + p.frequency_penalty * static_cast<double>(n);
    l[id] = static_cast<float>(v);
    const auto bias = p.logit_bias.find(static_cast<int32_t>(id));
    if (bias != p.logit_bias.end()) l[id] = static_cast<float>(l[id] + bias->second);
  }
  std::vector<size_t> ascending(V);
  for (size_t i = 0; i < V; ++i) ascending[i] = i;
  std::sort(ascending.begin(), ascending.end(), [&](size_t a, size_t b) { return l[a] != l[b] ? l[a] < l[b] : a > b; });
  std::vector<double> w(V, 0);
  const size_t first = p.top_k > 0 && static_cast<size_t>(p.top_k) < V ? V - static_cast<size_t>(p.top_k) : 0;
  double total = 0;
  for (size_t i = first; i < V; ++i)
    total += w[ascending[i]] = std::exp((double{l[ascending[i]]} - double{l[ascending[V - 1]]}) / p.temperature);
  double cumulative = 0;
  for (size_t i = first; i + 1 < V; ++i) {
    cumulative += w[ascending[i]] / total;
    if (p.top_p < 1 && cumulative <= 1 - p.top_p) w[ascending[i]] = 0;
  }
  double kept = 0;
  for (double& x : w) kept += x = x >= p.min_p ? x : 0;
  for (double& x : w) x /= kept;
  return w;
}

void expect_distribution(const SamplerParams& p, const std::vector<float>& logits, const std::vector<int32_t>& seen) {
  const std::vector<double> want = brute_force(p, logits, seen);
  std::vector<double> got(want.size(), 0);
  const Sampler s(p, static_cast<int64_t>(logits.size()));
  for (const TokenLogprob& t : s.distribution(logits, history_of(seen)))
    got[static_cast<size_t>(t.id)] = std::exp(t.logprob);
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-12) << "id " << i;
}

TEST(Sampler, TrapJ3_DistributionsEqualTheDefinition) {
  const std::vector<int32_t> seen = {3, 3, 7, 150, 3, 20, 7, 8, 9};
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed, 1);
    SamplerParams p = at(rng.uniform(0.2, 2.0));
    if (rng.below(2)) p.top_k = static_cast<int64_t>(1 + rng.below(200));
    if (rng.below(2)) p.top_p = rng.uniform(0.05, 0.999);
    if (rng.below(2)) p.min_p = rng.uniform(0, 0.3);
    if (rng.below(2)) p.repetition_penalty = rng.uniform(0.8, 1.5);
    if (rng.below(2)) p.presence_penalty = rng.uniform(-1, 1);
    if (rng.below(2)) p.frequency_penalty = rng.uniform(-1, 1);
    if (p.penalizes() && rng.below(2)) p.penalty_window = static_cast<int64_t>(1 + rng.below(12));
    if (rng.below(2)) p.logit_bias = {{5, 3.5}, {11, -kInf}};
    expect_distribution(p, random_logits(200, seed, rng.uniform(0.1, 4)), seen);
  }
}

TEST(Sampler, TrapJ2_MinPIsRelativeToTheLikeliestToken) {
  // p = 0.5, 0.3, 0.15, 0.05, and token 0 is an unlikely one: the reference's defect would cut by its logit.
  const std::vector<float> logits = {std::log(0.05f), std::log(0.5f), std::log(0.3f), std::log(0.15f)};
  SamplerParams p = at(1);
  p.min_p = 0.29;
  EXPECT_THAT(ids_of(Sampler(p, 4).distribution(logits, {})), testing::ElementsAre(1, 2, 3));
  p.min_p = 0.31;
  EXPECT_THAT(ids_of(Sampler(p, 4).distribution(logits, {})), testing::ElementsAre(1, 2));
  p.min_p = 1;
  EXPECT_THAT(ids_of(Sampler(p, 4).distribution(logits, {})), testing::ElementsAre(1));
}

TEST(Sampler, TopPDropsFromTheBottom) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.2f), std::log(0.3f), std::log(0.4f)};
  SamplerParams p = at(1);
  p.top_p = 0.65;  // cumulative from below 0.1, 0.3, 0.6, 1: dropped while <= 0.35
  EXPECT_THAT(ids_of(Sampler(p, 4).distribution(logits, {})), testing::ElementsAre(2, 3));
  p.top_p = 1e-9;
  EXPECT_THAT(ids_of(Sampler(p, 4).distribution(logits, {})), testing::ElementsAre(3));
}

TEST(Sampler, TiesGoToTheLowestId) {
  const std::vector<float> logits = {1, 3, 3, 3, 2};
  RngState rng;
  EXPECT_EQ(Sampler(at(0), 5).pick(logits, {}, rng), 1);
  EXPECT_EQ(rng.counter, 0u) << "greedy draws nothing";
  SamplerParams p = at(1);
  p.top_k = 2;
  EXPECT_THAT(ids_of(Sampler(p, 5).distribution(logits, {})), testing::ElementsAre(1, 2));
}

TEST(Sampler, TrapC7_PaddedIdsAreNeverChosen) {
  std::vector<float> logits = random_logits(32, 4);
  for (size_t i = 29; i < 32; ++i) logits[i] = 1e30f;
  logits[31] = std::numeric_limits<float>::quiet_NaN();  // whatever a padded row holds
  RngState rng;
  const Sampler greedy(at(0), 29), hot(at(5), 29);
  EXPECT_LT(greedy.pick(logits, {}, rng), 29);
  for (int i = 0; i < 500; ++i) EXPECT_LT(hot.pick(logits, {}, rng), 29);
}

TEST(Sampler, DrawsFollowTheDistributionAndTheCounter) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.6f), std::log(0.3f)};
  const Sampler s(at(1), 3);
  RngState rng{42, 7, 0};
  std::vector<int> first, counts(3, 0);
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const int32_t id = s.pick(logits, {}, rng);
    ++counts[static_cast<size_t>(id)];
    if (i >= 100 && i < 200) first.push_back(id);
  }
  EXPECT_EQ(rng.counter, static_cast<uint64_t>(kDraws));
  EXPECT_NEAR(counts[0], 0.1 * kDraws, 170);  // four standard deviations
  EXPECT_NEAR(counts[1], 0.6 * kDraws, 280);
  RngState resumed{42, 7, 100};
  for (const int id : first) EXPECT_EQ(s.pick(logits, {}, resumed), id);
  RngState other{42, 8, 100};
  int same = 0;
  for (const int id : first) same += s.pick(logits, {}, other) == id;
  EXPECT_LT(same, 80) << "another stream is another sequence of draws";
}

TEST(Sampler, LargeVocabularyEqualsTheDefinition) {
  const std::vector<float> logits = random_logits(20000, 9, 1.0);
  SamplerParams p = at(1);
  p.top_p = 0.97;  // a nucleus of thousands
  expect_distribution(p, logits, {});
  p.top_k = 5000;
  expect_distribution(p, logits, {});
}

TEST(Sampler, NonFiniteLogitsAreRefused) {
  RngState rng;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> logits = random_logits(8, 1);
    logits[5] = bad;
    EXPECT_EQ(code_of([&] { Sampler(at(0), 8).pick(logits, {}, rng); }), ErrorCode::kBadData);
    EXPECT_EQ(code_of([&] { Sampler(at(1), 8).pick(logits, {}, rng); }), ErrorCode::kBadData);
  }
  SamplerParams none = at(1);
  for (int32_t id = 0; id < 8; ++id) none.logit_bias[id] = -kInf;
  EXPECT_EQ(code_of([&] { Sampler(none, 8).pick(random_logits(8, 1), {}, rng); }), ErrorCode::kUsage);
  const std::vector<float> all_forbidden(8, -kInf);
  EXPECT_EQ(code_of([&] { Sampler(at(1), 8).pick(all_forbidden, {}, rng); }), ErrorCode::kBadData);
}

TEST(Sampler, OptionsThatMakeNoSenseAreErrors) {
  const auto refused = [](const std::function<void(SamplerParams&)>& change, double temperature = 1) {
    SamplerParams p = at(temperature);
    change(p);
    return code_of([&] { validate(p, 100); }) == ErrorCode::kUsage;
  };
  const double nan = std::nan("");
  EXPECT_FALSE(refused([](SamplerParams&) {}));
  EXPECT_FALSE(refused([](SamplerParams&) {}, 0));
  for (const double t : {-1.0, kInf, nan}) EXPECT_TRUE(refused([](SamplerParams&) {}, t));
  EXPECT_TRUE(refused([](SamplerParams& p) { p.top_k = -1; }));
  for (const double v : {0.0, -0.1, 1.1, nan}) EXPECT_TRUE(refused([v](SamplerParams& p) { p.top_p = v; }));
  for (const double v : {-0.1, 1.1, nan}) EXPECT_TRUE(refused([v](SamplerParams& p) { p.min_p = v; }));
  for (const double v : {0.0, -1.0, kInf, nan})
    EXPECT_TRUE(refused([v](SamplerParams& p) { p.repetition_penalty = v; }));
  for (const double v : {kInf, nan}) EXPECT_TRUE(refused([v](SamplerParams& p) { p.presence_penalty = v; }));
  for (const double v : {kInf, nan}) EXPECT_TRUE(refused([v](SamplerParams& p) { p.frequency_penalty = v; }));
  EXPECT_TRUE(refused([](SamplerParams& p) { p.logit_bias[100] = 1; }));
  EXPECT_TRUE(refused([](SamplerParams& p) { p.logit_bias[-1] = 1; }));
  EXPECT_TRUE(refused([](SamplerParams& p) { p.logit_bias[0] = std::nan(""); }));
  EXPECT_TRUE(refused([](SamplerParams& p) { p.logit_bias[0] = kInf; }));
  // Cannot apply.
  EXPECT_TRUE(refused([](SamplerParams& p) { p.top_k = 5; }, 0));
  EXPECT_TRUE(refused([](SamplerParams& p) { p.top_p = 0.9; }, 0));
  EXPECT_TRUE(refused([](SamplerParams& p) { p.min_p = 0.1; }, 0));
  EXPECT_TRUE(refused([](SamplerParams& p) { p.penalty_window = 64; }));
  EXPECT_TRUE(refused([](SamplerParams& p) { p.penalty_window = 0, p.presence_penalty = 1; }));
  EXPECT_TRUE(refused([](SamplerParams& p) { p.penalty_window = 4097, p.presence_penalty = 1; }));
  EXPECT_FALSE(refused([](SamplerParams& p) { p.penalty_window = 4096, p.presence_penalty = 1; }));
}

TEST(Sampler, LogprobsAreOfTheModelsOwnLogits) {
  const std::vector<float> logits = {0, 2, 1, 2};
  const double norm = std::log(1 + 2 * std::exp(2.0) + std::exp(1.0));
  const Logprobs l = logprobs(logits, 2, 3);
  EXPECT_EQ(l.chosen.id, 2);
  EXPECT_NEAR(l.chosen.logprob, 1 - norm, 1e-12);
  EXPECT_THAT(ids_of(l.top), testing::ElementsAre(1, 3, 2));
  EXPECT_NEAR(l.top[0].logprob, 2 - norm, 1e-12);
  EXPECT_TRUE(logprobs(logits, 0, 0).top.empty());
}

TEST(TokenHistory, CountsWindowsAndHash) {
  TokenHistory h;
  EXPECT_EQ(h.hash(), 0u);
  for (int32_t i = 0; i < 5000; ++i) h.push(i % 10);
  EXPECT_EQ(h.position(), 5000);
  EXPECT_EQ(static_cast<int64_t>(h.recent().size()), TokenHistory::kRecent);
  EXPECT_EQ(h.counts().of(3), 500);
  EXPECT_EQ(h.counts_within(-1).of(3), 500);
  EXPECT_EQ(h.counts_within(15).of(9), 2);
  EXPECT_EQ(h.counts_within(15).of(3), 1);
  EXPECT_EQ(h.counts_within(3).of(3), 0);
  EXPECT_NE(history_of({1, 2}).hash(), history_of({2, 1}).hash());
  EXPECT_NE(history_of({0}).hash(), history_of({0, 0}).hash());
  EXPECT_EQ(TokenHistory::from_parts(h.hash(), {h.recent().begin(), h.recent().end()}, h.counts()), h);
}

// Against the obvious way to do it; histories grow beyond what they remember in order, and copies are alike.
TEST(TokenHistory, IsAFunctionOfTheTokens) {
  TokenHistory h;
  std::deque<int32_t> recent;
  std::map<int32_t, int64_t> counts;
  Rng rng(11);
  for (int64_t i = 0; i < 3 * TokenHistory::kRecent + 7; ++i) {
    const auto id = static_cast<int32_t>(rng.below(2) == 0 ? rng.below(40) : rng.below(100'000));
    h.push(id);
    ++counts[id];
    recent.push_back(id);
    if (std::ssize(recent) > TokenHistory::kRecent) recent.pop_front();
    if (i % 1000 != 0) continue;
    ASSERT_TRUE(std::ranges::equal(h.recent(), recent)) << i;
    ASSERT_EQ(h.counts().size(), counts.size());
    for (const auto& [token, n] : counts) ASSERT_EQ(h.counts().of(token), n);
    for (const auto& [token, n] : h.counts()) ASSERT_EQ(counts.at(token), n);
  }
  const TokenHistory parts =
      TokenHistory::from_parts(h.hash(), {recent.begin(), recent.end()}, {counts.begin(), counts.end()});
  EXPECT_EQ(parts, h);
  TokenHistory other = parts;
  other.push(1);
  EXPECT_FALSE(other == h);
}

TEST(TokenHistory, PartsThatContradictAreRefused) {
  const auto refused = [](std::vector<int32_t> recent, TokenCounts counts, uint64_t hash = 1) {
    return code_of([&] { TokenHistory::from_parts(hash, recent, counts); }) == ErrorCode::kBadData;
  };
  EXPECT_FALSE(refused({1, 2, 1}, {{1, 2}, {2, 1}}));
  EXPECT_TRUE(refused({1, 2}, {{1, 2}, {2, 1}}));
  EXPECT_TRUE(refused({1, 2, 2}, {{1, 2}, {2, 1}}));
  EXPECT_TRUE(refused({1, 3, 1}, {{1, 2}, {2, 1}}));
  EXPECT_TRUE(refused({-1}, {{-1, 1}}));
  EXPECT_TRUE(refused({}, {{1, 0}}));
  EXPECT_TRUE(refused({}, {{1, int64_t{1} << 61}}));
  EXPECT_TRUE(refused({}, {}, 1)) << "hash of nothing";
}

}  // namespace
}  // namespace krait
