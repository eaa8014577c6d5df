// Tasks of state tracking (Delétang et al., 2023): parity and modular arithmetic.
#include "krait/data/tasks/draw.h"
#include "krait/data/tasks/task_list.h"

namespace krait::data {
namespace {

// ids: the bits; the answer is the parity of the bits so far.
class Parity final : public Task {
 public:
  Parity(const TaskOptions& o, uint64_t seed)
      : Task(o, seed), lengths_(o, 1), all_(o.choice("scored", {"last", "all"}) == "all") {}

  int64_t vocab_size() const override { return 2; }
  double chance() const override { return 0.5; }

  Example example(int64_t index) const override {
    Rng r = rng(index);
    Example e(static_cast<size_t>(lengths_.draw(r, index)));
    int32_t parity = 0;
    for (size_t t = 0; t < e.ids.size(); ++t) {
      e.ids[t] = static_cast<int32_t>(r.below(2));
      parity ^= e.ids[t];
      if (all_ || t + 1 == e.ids.size()) e.answer(t, parity);
    }
    return e;
  }

 private:
  LengthCurriculum lengths_;
  bool all_;
};

// An expression over 0 .. m-1 and "=", where its value modulo m is the answer.
//   ids: numbers 0 .. m-1, then + - * = ( )
// Without brackets: numbers and operators in turn, * before + and -. With brackets: the grammar of Delétang et al.,
//   E(1) = x   E(2) = -x   E(3) = (x)   E(4) = (-x)   E(n) = (E(i) op E(n - 3 - i)), i uniform in 1 .. n-4.
class ModularArithmetic final : public Task {
 public:
  ModularArithmetic(const TaskOptions& o, uint64_t seed)
      : Task(o, seed),
        lengths_(o, 2),
        modulus_(o.integer("modulus", 2, 1 << 20)),
        brackets_(o.choice("brackets", {"false", "true"}) == "true") {}

  int64_t vocab_size() const override { return modulus_ + (brackets_ ? 6 : 4); }
  double chance() const override { return 1.0 / static_cast<double>(modulus_); }

  Example example(int64_t index) const override {
    Rng r = rng(index);
    const int64_t n = lengths_.draw(r, index) - 1;  // of the expression
    std::vector<int32_t> ids;
    const int64_t value = brackets_ ? bracketed(r, n, ids) : flat(r, (n + 1) / 2, ids);
    ids.push_back(symbol(kEquals));
    Example e(ids.size());
    e.ids = std::move(ids);
    e.answer(e.ids.size() - 1, static_cast<int32_t>(value));
    return e;
  }

 private:
  enum Symbol : uint8_t { kPlus, kMinus, kTimes, kEquals, kOpen, kClose };

  int32_t symbol(int s) const { return static_cast<int32_t>(modulus_ + s); }
  int64_t reduce(int64_t x) const { return (x % modulus_ + modulus_) % modulus_; }
  int64_t number(Rng& r, std::vector<int32_t>& out) const {
    out.push_back(static_cast<int32_t>(draw_between(r, 0, modulus_ - 1)));
    return out.back();
  }
  int64_t apply(int op, int64_t a, int64_t b) const {
    return reduce(op == kPlus ? a + b : op == kMinus ? a - b : a * b);
  }

  // `terms` numbers: a sum of signed products.
  int64_t flat(Rng& r, int64_t terms, std::vector<int32_t>& out) const {
    int64_t sum = 0, product = number(r, out);
    for (int64_t i = 1; i < terms; ++i) {
      const auto op = static_cast<int>(r.below(3));
      out.push_back(symbol(op));
      const int64_t x = number(r, out);
      if (op != kTimes) sum += product;
      product = reduce(op == kTimes ? product * x : op == kMinus ? -x : x);
    }
    return reduce(sum + product);
  }

  // Depth-first with a stack of its own: an expression may be nested as deep as it is long.
  int64_t bracketed(Rng& r, int64_t length, std::vector<int32_t>& out) const;
  int64_t small(Rng& r, int64_t length, std::vector<int32_t>& out) const {
    const bool open = length >= 3, negative = length % 2 == 0;
    if (open) out.push_back(symbol(kOpen));
    if (negative) out.push_back(symbol(kMinus));
    const int64_t x = number(r, out);
    if (open) out.push_back(symbol(kClose));
    return reduce(negative ? -x : x);
  }

  LengthCurriculum lengths_;
  int64_t modulus_;
  bool brackets_;
};

int64_t ModularArithmetic::bracketed(Rng& r, int64_t length, std::vector<int32_t>& out) const {
  struct Open {
    int64_t right;  // length of the right side
    int op = 0;
    bool left_done = false;
    int64_t left_value = 0;
  };
  std::vector<Open> open;
  int64_t n = length;
  for (;;) {
    if (n > 4) {
      out.push_back(symbol(kOpen));
      const int64_t left = draw_between(r, 1, n - 4);
      open.push_back({.right = n - 3 - left});
      n = left;
      continue;
    }
    int64_t value = small(r, n, out);
    while (!open.empty() && open.back().left_done) {
      out.push_back(symbol(kClose));
      value = apply(open.back().op, open.back().left_value, value);
      open.pop_back();
    }
    if (open.empty()) return value;
    Open& o = open.back();
    o.left_done = true;
    o.left_value = value;
    o.op = static_cast<int>(r.below(3));
    out.push_back(symbol(o.op));
    n = o.right;
  }
}

template <class T>
std::unique_ptr<Task> make(const TaskOptions& o, uint64_t seed) {
  return std::make_unique<T>(o, seed);
}

std::vector<TaskOption> with_lengths(std::vector<TaskOption> options) {
  for (const TaskOption& o : length_options()) options.push_back(o);
  return options;
}

}  // namespace

TaskInfo parity_task() {
  return {"parity", "whether the number of ones so far is odd",
          with_lengths({{"scored", "last", "last: the answer is wanted at the end; all: at every position"}}),
          make<Parity>};
}

TaskInfo modular_arithmetic_task() {
  return {"modular_arithmetic", "the value of an expression modulo m; the last position is counted",
          with_lengths({{"modulus", "5", "m"}, {"brackets", "false", "true: every operation in brackets"}}),
          make<ModularArithmetic>};
}

}  // namespace krait::data
