// Copying (Arjovsky et al., 2016) and selective copying (Gu and Dao, 2023, §4.1.1). The layout is that of the S4
// repository: data symbols among noise, then as many markers, at which the symbols are to be said in order.
//   ids: noise 0, symbols 1 .. V-2, marker V-1;  T = length + 2 * tokens
#include <numeric>

#include "krait/data/tasks/draw.h"
#include "krait/data/tasks/task_list.h"

namespace krait::data {
namespace {

class Copying final : public Task {
 public:
  Copying(const TaskOptions& o, uint64_t seed, bool selective)
      : Task(o, seed),
        length_(o.integer("length", 0, int64_t{1} << 32)),
        tokens_(o.integer("tokens", 1, int64_t{1} << 24)),
        vocab_(o.integer("vocab", 3, int64_t{1} << 31)),
        selective_(selective) {}

  int64_t vocab_size() const override { return vocab_; }
  double chance() const override { return 1.0 / static_cast<double>(vocab_ - 2); }

  Example example(int64_t index) const override {
    Rng r = rng(index);
    std::vector<int64_t> places(static_cast<size_t>(tokens_));
    std::iota(places.begin(), places.end(), int64_t{0});
    if (selective_) {
      places = draw_distinct(r, length_ + tokens_, tokens_);
      std::ranges::sort(places);
    }
    Example e(static_cast<size_t>(length_ + 2 * tokens_));
    for (size_t i = 0; i < places.size(); ++i) {
      const auto symbol = static_cast<int32_t>(draw_between(r, 1, vocab_ - 2));
      const size_t marker = static_cast<size_t>(length_ + tokens_) + i;
      e.ids[static_cast<size_t>(places[i])] = symbol;
      e.ids[marker] = static_cast<int32_t>(vocab_ - 1);
      e.answer(marker, symbol);
    }
    return e;
  }

 private:
  int64_t length_, tokens_, vocab_;
  bool selective_;
};

}  // namespace

TaskInfo selective_copying_task() {
  return {"selective_copying",
          "say the data symbols that stood among noise, in order; answers are counted",
          {{"length", "4096", "positions of noise"},
           {"tokens", "16", "data symbols"},
           {"vocab", "16", "ids: noise, symbols and a marker"}},
          [](const TaskOptions& o, uint64_t seed) -> std::unique_ptr<Task> {
            return std::make_unique<Copying>(o, seed, true);
          }};
}

TaskInfo copying_task() {
  return {"copying",
          "say the data symbols that stood at the beginning, in order; answers are counted",
          {{"length", "1000", "positions of noise between the symbols and the answer"},
           {"tokens", "10", "data symbols"},
           {"vocab", "10", "ids: noise, symbols and a marker"}},
          [](const TaskOptions& o, uint64_t seed) -> std::unique_ptr<Task> {
            return std::make_unique<Copying>(o, seed, false);
          }};
}

}  // namespace krait::data
