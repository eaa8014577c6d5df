// Tasks of recall: what once followed a key is wanted where the key returns.
#include "krait/data/tasks/draw.h"
#include "krait/data/tasks/task_list.h"

namespace krait::data {
namespace {

constexpr int64_t kLongest = int64_t{1} << 32, kWidest = int64_t{1} << 31;

// Induction heads (Gu and Dao, 2023, §4.1.2): random symbols; a trigger, once somewhere and again at the end.
//   ids: symbols 0 .. V-2, trigger V-1
class InductionHeads final : public Task {
 public:
  InductionHeads(const TaskOptions& o, uint64_t seed)
      : Task(o, seed), length_(o.integer("length", 3, kLongest)), vocab_(o.integer("vocab", 3, kWidest)) {
    const int64_t least = o.integer("length_min", 0, length_);
    if (least != 0 && least < 3) o.fail("length_min = " + std::to_string(least) + ", wanted is 0 or at least 3");
    shortest_ = least == 0 ? length_ : least;
  }

  int64_t vocab_size() const override { return vocab_; }
  double chance() const override { return 1.0 / static_cast<double>(vocab_ - 1); }

  Example example(int64_t index) const override {
    Rng r = rng(index);
    const int64_t length = shortest_ == length_ ? length_ : draw_between(r, shortest_, length_);
    Example e(static_cast<size_t>(length));
    for (int32_t& id : e.ids) id = static_cast<int32_t>(draw_between(r, 0, vocab_ - 2));
    const auto at = static_cast<size_t>(draw_between(r, 0, length - 3));
    e.ids[at] = e.ids.back() = static_cast<int32_t>(vocab_ - 1);
    e.answer(e.ids.size() - 1, e.ids[at + 1]);
    return e;
  }

 private:
  int64_t length_, vocab_, shortest_ = 0;
};

// Multi-query associative recall as the code of Arora et al. (2023) makes it: pairs of different keys and different
// values, then the keys again, each once, at gaps of two positions drawn from a power law; random ids between.
//   ids: keys 1 .. V/2-1, values V/2 .. V-1
class Mqar final : public Task {
 public:
  Mqar(const TaskOptions& o, uint64_t seed)
      : Task(o, seed),
        length_(o.integer("length", 4, int64_t{1} << 24)),
        pairs_(o.integer("pairs", 0, length_ / 4)),
        vocab_(o.integer("vocab", 4, kWidest)),
        stage_samples_(o.integer("stage_samples", 0, int64_t{1} << 40)) {
    if (pairs_ == 0) pairs_ = length_ / 4;
    first_pairs_ = o.integer("first_pairs", 0, pairs_);
    if ((first_pairs_ == 0) != (stage_samples_ == 0)) o.fail("first_pairs and stage_samples go together");
    if (pairs_ > vocab_ / 2 - 1) o.fail("there are fewer than " + std::to_string(pairs_) + " keys");
    const double power = o.number("power", 1e-6, 100);
    for (int64_t gap = 1; gap <= length_ / 2; ++gap) {
      gap_weights_.push_back(power * std::pow(static_cast<double>(gap), power - 1));
    }
  }

  int64_t vocab_size() const override { return vocab_; }
  double chance() const override {
    const int64_t values = vocab_ - vocab_ / 2;
    return 1.0 / static_cast<double>(values);
  }

  Example example(int64_t index) const override {
    Rng r = rng(index);
    const int64_t pairs = pairs_at(index), begin = 2 * pairs;
    const auto keys = draw_distinct(r, vocab_ / 2 - 1, pairs), values = draw_distinct(r, vocab_ - vocab_ / 2, pairs);
    const std::vector<double> weights(gap_weights_.begin(), gap_weights_.begin() + (length_ - begin) / 2);
    const auto gaps = draw_weighted(r, weights, pairs);
    Example e(static_cast<size_t>(length_));
    for (int32_t& id : e.ids) id = static_cast<int32_t>(draw_between(r, 0, vocab_ - 1));
    for (int64_t i = 0; i < pairs; ++i) {
      const auto n = static_cast<size_t>(i);
      const auto key = static_cast<int32_t>(1 + keys[n]), value = static_cast<int32_t>(vocab_ / 2 + values[n]);
      e.ids[2 * n] = key;
      e.ids[2 * n + 1] = value;
      const auto query = static_cast<size_t>(begin + 2 * gaps[n]);
      e.ids[query] = key;
      e.answer(query, value);
    }
    return e;
  }

 private:
  // Doubled at every stage.
  int64_t pairs_at(int64_t index) const {
    if (stage_samples_ == 0) return pairs_;
    int64_t n = first_pairs_;
    for (int64_t stage = index / stage_samples_; stage > 0 && n < pairs_; --stage) n *= 2;
    return std::min(n, pairs_);
  }

  int64_t length_, pairs_, first_pairs_ = 0, vocab_, stage_samples_;
  std::vector<double> gap_weights_;
};

// Needle retrieval: facts "marker key value…" somewhere among random symbols; at the end one key is asked for and its
// values are to be said (each but the last is given as input at the next position).
//   ids: symbols 0 .. V-2, marker V-1
class Needle final : public Task {
 public:
  Needle(const TaskOptions& o, uint64_t seed)
      : Task(o, seed),
        length_(o.integer("length", 8, kLongest)),
        needles_(o.integer("needles", 1, int64_t{1} << 20)),
        values_(o.integer("values", 1, int64_t{1} << 20)),
        vocab_(o.integer("vocab", 3, kWidest)) {
    if (needles_ > vocab_ - 1) o.fail("there are fewer than " + std::to_string(needles_) + " keys");
    if (hay() < 0) o.fail("length " + std::to_string(length_) + " does not hold the needles and the question");
  }

  int64_t vocab_size() const override { return vocab_; }
  bool counts_sequences() const override { return true; }
  double chance() const override {
    return std::pow(1.0 / static_cast<double>(vocab_ - 1), static_cast<double>(values_));
  }

  Example example(int64_t index) const override {
    Rng r = rng(index);
    Example e(static_cast<size_t>(length_));
    for (int32_t& id : e.ids) id = static_cast<int32_t>(draw_between(r, 0, vocab_ - 2));
    const auto keys = draw_distinct(r, vocab_ - 1, needles_);
    // Needles in slots of their own size, the hay between them.
    auto slots = draw_distinct(r, hay() + needles_, needles_);
    std::ranges::sort(slots);
    const auto asked = static_cast<size_t>(draw_between(r, 0, needles_ - 1));
    const auto question = static_cast<size_t>(length_ - values_ - 1);
    for (size_t i = 0; i < slots.size(); ++i) {
      const auto at = static_cast<size_t>(slots[i]) + i * static_cast<size_t>(1 + values_);
      write_key(e, at, keys[i]);
      for (size_t v = 0; i == asked && v < static_cast<size_t>(values_); ++v) {
        e.answer(question + 1 + v, e.ids[at + 2 + v]);
        if (v + 1 < static_cast<size_t>(values_)) e.ids[question + 2 + v] = e.ids[at + 2 + v];
      }
    }
    write_key(e, question, keys[asked]);
    return e;
  }

 private:
  // Random symbols besides the needles and the question, which has all but the last of the values.
  int64_t hay() const { return length_ - needles_ * (2 + values_) - (1 + values_); }
  void write_key(Example& e, size_t at, int64_t key) const {
    e.ids[at] = static_cast<int32_t>(vocab_ - 1);
    e.ids[at + 1] = static_cast<int32_t>(key);
  }

  int64_t length_, needles_, values_, vocab_;
};

template <class T>
std::unique_ptr<Task> make(const TaskOptions& o, uint64_t seed) {
  return std::make_unique<T>(o, seed);
}

}  // namespace

TaskInfo induction_heads_task() {
  return {"induction_heads",
          "say what followed the trigger the first time; the last position is counted",
          {{"length", "256", "positions, the question included"},
           {"length_min", "0", "of the shortest sequence, each length as likely; 0: all are of `length`"},
           {"vocab", "16", "ids: symbols and the trigger"}},
          make<InductionHeads>};
}

TaskInfo mqar_task() {
  return {"mqar",
          "multi-query associative recall: say the value of each key that returns; answers are counted",
          {{"length", "256", "positions"},
           {"pairs", "0", "keys and values; 0: a quarter of the length"},
           {"vocab", "8192", "ids: half keys, half values"},
           {"power", "0.01", "exponent of the power law of the gaps"},
           {"first_pairs", "0", "pairs of the first stage, doubled at each; 0: no stages"},
           {"stage_samples", "0", "examples of a stage"}},
          make<Mqar>};
}

TaskInfo needle_task() {
  return {"needle",
          "say the values of one of the facts hidden in random symbols; sequences are counted",
          {{"length", "4096", "positions, the question and its answer included"},
           {"needles", "1", "facts; one is asked for"},
           {"values", "4", "symbols of an answer"},
           {"vocab", "64", "ids: symbols and the marker"}},
          make<Needle>};
}

}  // namespace krait::data
