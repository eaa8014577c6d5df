// Every generated sequence is read again by a reader that knows only the rules of the task.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include "krait/data/tasks/draw.h"
#include "krait/data/tasks/task.h"
#include "krait/io/test_folder.h"

namespace krait::data {
namespace {

using testing::HasSubstr;
using Ids = std::vector<int32_t>;

std::unique_ptr<Task> make(const std::string& name, const TaskConfig& config = {}, uint64_t seed = 1) {
  return make_task(*find_task(name), config, seed);
}

// What a reader says an example's answers are: position -> id.
using Answers = std::map<size_t, int32_t>;
using Reader = std::function<Answers(const Ids&)>;

void expect_read(const Task& task, int64_t examples, const Reader& read) {
  for (int64_t i = 0; i < examples; ++i) {
    const Example e = task.example(i);
    ASSERT_EQ(e.targets.size(), e.ids.size());
    ASSERT_EQ(e.weights.size(), e.ids.size());
    Answers said;
    for (size_t t = 0; t < e.ids.size(); ++t) {
      ASSERT_TRUE(e.ids[t] >= 0 && e.ids[t] < task.vocab_size() && e.targets[t] >= 0 &&
                  e.targets[t] < task.vocab_size());
      if (e.weights[t] == 1.0f) {
        said[t] = e.targets[t];
      } else {
        ASSERT_EQ(e.weights[t], 0.0f);
      }
    }
    ASSERT_EQ(said, read(e.ids)) << "example " << i << ": " << testing::PrintToString(e.ids);
  }
}

Answers read_copying(const Ids& ids, int32_t marker) {
  Ids symbols;
  Answers out;
  for (size_t t = 0; t < ids.size(); ++t) {
    if (ids[t] == marker) {
      out[t] = symbols.at(out.size());
    } else if (ids[t] != 0) {
      symbols.push_back(ids[t]);
    }
  }
  EXPECT_EQ(out.size(), symbols.size());
  return out;
}

TEST(Tasks, SelectiveCopying) {
  const auto task = make("selective_copying");
  expect_read(*task, 20, [](const Ids& ids) {
    EXPECT_EQ(ids.size(), 4096u + 32u);
    return read_copying(ids, 15);
  });
  // The symbols stand anywhere: over many examples everywhere equally often (each place 16 of 80, 40 times of 200).
  const auto small = make("selective_copying", {{"length", "64"}});
  std::vector<int> used(80);
  for (int64_t i = 0; i < 200; ++i) {
    const Example e = small->example(i);
    for (size_t t = 0; t < used.size(); ++t) used[t] += e.ids[t] != 0 ? 1 : 0;
  }
  EXPECT_EQ(std::accumulate(used.begin(), used.end(), 0), 200 * 16);
  EXPECT_GT(*std::ranges::min_element(used), 15);
  EXPECT_LT(*std::ranges::max_element(used), 65);
}

TEST(Tasks, Copying) {
  expect_read(*make("copying"), 20, [](const Ids& ids) {
    EXPECT_EQ(ids.size(), 1020u);
    EXPECT_EQ(std::ranges::count(ids.begin() + 10, ids.begin() + 1010, 0), 1000);
    return read_copying(ids, 9);
  });
}

TEST(Tasks, InductionHeads) {
  for (const char* length : {"3", "4", "256", "65536"}) {
    expect_read(*make("induction_heads", {{"length", length}}), 20, [&](const Ids& ids) {
      EXPECT_EQ(std::to_string(ids.size()), length);
      const auto first = std::ranges::find(ids, 15);
      EXPECT_EQ(ids.back(), 15);
      EXPECT_EQ(std::ranges::count(ids, 15), 2);
      return Answers{{ids.size() - 1, first[1]}};
    });
  }
  std::set<size_t> lengths;
  expect_read(*make("induction_heads", {{"length", "8"}, {"length_min", "5"}}), 100, [&](const Ids& ids) {
    lengths.insert(ids.size());
    return Answers{{ids.size() - 1, std::ranges::find(ids, 15)[1]}};
  });
  EXPECT_EQ(lengths, (std::set<size_t>{5, 6, 7, 8}));
}

// The pairs come first; a query is a key that returns at an even distance. Random ids between may be keys too: those
// that the example does not score are left out by their number.
TEST(Tasks, Mqar) {
  const auto task = make("mqar", {{"length", "128"}, {"pairs", "16"}});
  for (int64_t i = 0; i < 50; ++i) {
    const Example e = task->example(i);
    std::map<int32_t, int32_t> value_of;
    for (size_t p = 0; p < 16; ++p) {
      EXPECT_LT(e.ids[2 * p], 4096);
      EXPECT_GE(e.ids[2 * p + 1], 4096);
      EXPECT_TRUE(value_of.emplace(e.ids[2 * p], e.ids[2 * p + 1]).second);
    }
    std::set<int32_t> asked;
    for (size_t t = 0; t < e.ids.size(); ++t) {
      if (e.weights[t] == 0) continue;
      EXPECT_GE(t, 32u);
      EXPECT_EQ(t % 2, 0u);
      EXPECT_EQ(e.targets[t], value_of.at(e.ids[t]));
      EXPECT_TRUE(asked.insert(e.ids[t]).second);
    }
    EXPECT_EQ(asked.size(), 16u);
  }
}

TEST(Tasks, MqarHasAQuarterOfPairsAndStages) {
  const auto pairs_of = [](const Task& t, int64_t index) { return std::ranges::count(t.example(index).weights, 1.0f); };
  EXPECT_EQ(pairs_of(*make("mqar"), 0), 64);
  const auto staged = make("mqar", {{"first_pairs", "8"}, {"stage_samples", "10"}});
  EXPECT_EQ(pairs_of(*staged, 9), 8);
  EXPECT_EQ(pairs_of(*staged, 10), 16);
  EXPECT_EQ(pairs_of(*staged, 29), 32);
  EXPECT_EQ(pairs_of(*staged, 1000), 64);
}

TEST(Tasks, WeightedDrawsFollowTheirWeights) {
  // Of weights 1, 2, 3 two are drawn: 0 is left out with probability 2/6 * 3/4 + 3/6 * 2/3 = 7/12.
  constexpr int kDraws = 20000;
  int without_0 = 0, first_is_2 = 0;
  Rng rng(5);
  for (int i = 0; i < kDraws; ++i) {
    const auto drawn = draw_weighted(rng, {1, 2, 3}, 2);
    without_0 += std::ranges::find(drawn, 0) == drawn.end() ? 1 : 0;
    first_is_2 += drawn[0] == 2 ? 1 : 0;
  }
  EXPECT_NEAR(without_0, kDraws * 7.0 / 12, 350);  // five standard deviations
  EXPECT_NEAR(first_is_2, kDraws / 2.0, 355);
}

TEST(Tasks, DistinctDrawsAreUniform) {
  std::map<std::vector<int64_t>, int> seen;
  Rng rng(5);
  for (int i = 0; i < 12000; ++i) ++seen[draw_distinct(rng, 4, 2)];
  EXPECT_EQ(seen.size(), 12u);  // ordered pairs of different numbers, 1000 of each
  for (const auto& [pair, n] : seen) EXPECT_NEAR(n, 1000, 160) << testing::PrintToString(pair);
}

TEST(Tasks, Needle) {
  for (const TaskConfig& config : std::vector<TaskConfig>{
           {}, {{"length", "64"}, {"needles", "5"}, {"values", "3"}}, {{"length", "9"}, {"values", "1"}}}) {
    const auto task = make("needle", config);
    const size_t needles = config.contains("needles") ? 5 : 1;
    const size_t values = config.empty() ? 4 : static_cast<size_t>(std::stoi(config.find("values")->second));
    expect_read(*task, 30, [&](const Ids& ids) {
      std::vector<size_t> markers;
      for (size_t t = 0; t < ids.size(); ++t) {
        if (ids[t] == 63) markers.push_back(t);
      }
      EXPECT_EQ(markers.size(), needles + 1);
      const size_t question = markers.back();
      EXPECT_EQ(ids.size(), question + 1 + values);
      Answers out;
      std::set<int32_t> keys;
      for (size_t m = 0; m < needles; ++m) {
        EXPECT_TRUE(keys.insert(ids[markers[m] + 1]).second);
        if (ids[markers[m] + 1] != ids[question + 1]) continue;
        for (size_t v = 0; v < values; ++v) {
          out[question + 1 + v] = ids[markers[m] + 2 + v];
          if (v + 1 < values) {
            EXPECT_EQ(ids[question + 2 + v], ids[markers[m] + 2 + v]);
          }
        }
      }
      EXPECT_EQ(out.size(), values);
      return out;
    });
  }
}

TEST(Tasks, Parity) {
  const TaskConfig fixed{{"length_min", "256"}, {"length_max", "256"}, {"length_end", "256"}};
  expect_read(*make("parity", fixed), 50, [](const Ids& ids) {
    EXPECT_EQ(ids.size(), 256u);
    return Answers{{255, static_cast<int32_t>(std::ranges::count(ids, 1) % 2)}};
  });
  expect_read(*make("parity", {{"scored", "all"}}), 50, [](const Ids& ids) {
    Answers out;
    for (size_t t = 0; t < ids.size(); ++t)
      out[t] = static_cast<int32_t>(std::count(ids.begin(), ids.begin() + t + 1, 1) % 2);
    return out;
  });
}

// A recursive-descent reader of + - * = ( ) over numbers below m, * before + and -.
class Expression {
 public:
  Expression(const Ids& ids, int64_t m) : ids_(ids), m_(m) {}
  int32_t value() {
    const int64_t v = sum();
    EXPECT_EQ(ids_[at_], m_ + 3);
    EXPECT_EQ(at_ + 1, ids_.size());
    return static_cast<int32_t>(v);
  }

 private:
  bool take(int64_t symbol) { return ids_[at_] == m_ + symbol && ++at_ > 0; }
  int64_t sum() {
    int64_t v = product();
    for (;;) {
      if (take(0)) {
        v = (v + product()) % m_;
      } else if (take(1)) {
        v = (v + m_ - product()) % m_;
      } else {
        return v;
      }
    }
  }
  int64_t product() {
    int64_t v = factor();
    while (take(2)) v = v * factor() % m_;
    return v;
  }
  int64_t factor() {
    if (take(1)) return (m_ - factor()) % m_;
    if (!take(4)) return ids_[at_++];
    const int64_t v = sum();
    EXPECT_TRUE(take(5));
    return v;
  }
  const Ids& ids_;
  int64_t m_;
  size_t at_ = 0;
};

TEST(Tasks, ModularArithmetic) {
  for (const char* brackets : {"false", "true"}) {
    for (const int64_t m : {5, 7}) {
      const auto task = make("modular_arithmetic", {{"brackets", brackets}, {"modulus", std::to_string(m)}});
      expect_read(*task, 500, [m](const Ids& ids) { return Answers{{ids.size() - 1, Expression(ids, m).value()}}; });
    }
  }
  EXPECT_EQ(make("modular_arithmetic")->vocab_size(), 9);
  EXPECT_EQ(make("modular_arithmetic", {{"brackets", "true"}})->vocab_size(), 11);
}

TEST(Tasks, NestedExpressionsOfAnyLength) {
  for (const char* n : {"2", "3", "4", "5", "6", "8", "100000"}) {
    const auto task =
        make("modular_arithmetic", {{"brackets", "true"}, {"length_min", n}, {"length_max", n}, {"length_end", n}});
    EXPECT_EQ(std::to_string(task->example(0).ids.size()), n);
  }
}

TEST(Tasks, LengthsGrowByStages) {
  const auto longest = [](const Task& t, int64_t from) {
    size_t most = 0, least = 1000;
    for (int64_t i = from; i < from + 500; ++i) {
      most = std::max(most, t.example(i).ids.size());
      least = std::min(least, t.example(i).ids.size());
    }
    EXPECT_EQ(least, 3u);
    return most;
  };
  const auto task =
      make("parity", {{"stage_samples", "500"}, {"length_max", "10"}, {"length_step", "5"}, {"length_end", "18"}});
  EXPECT_EQ(longest(*task, 0), 10u);
  EXPECT_EQ(longest(*task, 500), 15u);
  EXPECT_EQ(longest(*task, 1000), 18u);
  EXPECT_EQ(longest(*task, 100000), 18u);
}

TEST(Tasks, ExamplesDependOnSeedAndIndexAlone) {
  for (const TaskInfo& info : tasks()) {
    const auto a = make_task(info, {}, 1), b = make_task(info, {}, 1), c = make_task(info, {}, 2);
    const Batch batch = a->samples({0, 5}, 4);
    EXPECT_EQ(batch.n_seqs(), 4);
    EXPECT_EQ(b->batch({0, 3}, 8, {.micro = 1, .n_micro = 4}), b->samples({0, 5}, 2)) << info.name;
    EXPECT_EQ(b->samples({0, 5}, 4), batch) << info.name;
    EXPECT_FALSE(c->samples({0, 5}, 4) == batch) << info.name;
    EXPECT_FALSE(a->samples({0, 6}, 4) == batch) << info.name;
    EXPECT_EQ(a->fingerprint(), b->fingerprint());
    EXPECT_NE(a->fingerprint(), c->fingerprint());
  }
  EXPECT_NE(make("parity")->fingerprint(), make("parity", {{"scored", "all"}})->fingerprint());
}

TEST(Tasks, AnswersAndSequencesAreCounted) {
  for (const auto& [name, sequences] : {std::pair{"selective_copying", false}, {"needle", true}, {"parity", false}}) {
    const auto task = make(name);
    const Batch b = task->samples({0, 0}, 10);
    const auto answers = static_cast<int64_t>(std::ranges::count(b.weights, 1.0f));
    Ids predictions(b.targets.size(), -1);
    EXPECT_EQ(task->score(b, predictions).right, 0);
    for (size_t t = 0; t < predictions.size(); ++t) {
      if (b.weights[t] != 0) predictions[t] = b.targets[t];
    }
    EXPECT_EQ(task->score(b, predictions).accuracy(), 1.0);
    EXPECT_EQ(task->score(b, predictions).counted, sequences ? 10 : answers);
    predictions.back() = -1;  // the last answer
    EXPECT_EQ(task->score(b, predictions).right, sequences ? 9 : answers - 1);
    EXPECT_THROW(task->score(b, std::span(predictions).first(3)), Error);
  }
  EXPECT_DOUBLE_EQ(make("parity")->scaled_accuracy({.right = 3, .counted = 4}), 0.5);
  EXPECT_DOUBLE_EQ(make("modular_arithmetic")->scaled_accuracy({.right = 1, .counted = 5}), 0.0);
}

TEST(Tasks, WrongOptionsAreNamed) {
  EXPECT_EQ(find_task("sorting"), nullptr);
  const auto usage = [](const std::string& name, const TaskConfig& config) {
    return io::message_of(ErrorCode::kUsage, [&] { make(name, config); });
  };
  EXPECT_THAT(usage("mqar", {{"lenght", "8"}}), HasSubstr("mqar has no option lenght; it has length, pairs, vocab"));
  EXPECT_THAT(usage("mqar", {{"length", "8x"}}), HasSubstr("length = 8x, wanted is an integer in 4 .. "));
  EXPECT_THAT(usage("mqar", {{"pairs", "65"}}), HasSubstr("in 0 .. 64"));
  EXPECT_THAT(usage("mqar", {{"vocab", "64"}}), HasSubstr("fewer than 64 keys"));
  EXPECT_THAT(usage("mqar", {{"power", "nan"}}), HasSubstr("wanted is a number"));
  EXPECT_THAT(usage("mqar", {{"first_pairs", "2"}}), HasSubstr("go together"));
  EXPECT_THAT(usage("parity", {{"scored", "some"}}), HasSubstr("wanted is one of last, all"));
  EXPECT_THAT(usage("parity", {{"length_min", "50"}}), HasSubstr("length_max = 40"));
  EXPECT_THAT(usage("induction_heads", {{"length_min", "2"}}), HasSubstr("0 or at least 3"));
  EXPECT_THAT(usage("induction_heads", {{"length_min", "257"}}), HasSubstr("0 .. 256"));
  EXPECT_THAT(usage("needle", {{"length", "8"}}), HasSubstr("does not hold"));
}

}  // namespace
}  // namespace krait::data
