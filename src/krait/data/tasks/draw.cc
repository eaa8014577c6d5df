#include "krait/data/tasks/draw.h"

#include <set>
#include <utility>

namespace krait::data {

std::vector<int64_t> draw_distinct(Rng& rng, int64_t n, int64_t k) {
  std::set<int64_t> seen;
  std::vector<int64_t> out;
  for (int64_t last = n - k; last < n; ++last) {
    int64_t x = draw_between(rng, 0, last);
    if (!seen.insert(x).second) seen.insert(x = last);
    out.push_back(x);
  }
  for (size_t i = out.size(); i > 1; --i) std::swap(out[i - 1], out[rng.below(i)]);
  return out;
}

std::vector<int64_t> draw_weighted(Rng& rng, const std::vector<double>& weights, int64_t k) {
  std::vector<double> arrival(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) arrival[i] = -std::log(1 - rng.uniform()) / weights[i];
  std::vector<int64_t> order(weights.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  const auto sooner = [&](int64_t a, int64_t b) {
    return std::pair(arrival[static_cast<size_t>(a)], a) < std::pair(arrival[static_cast<size_t>(b)], b);
  };
  std::partial_sort(order.begin(), order.begin() + k, order.end(), sooner);
  order.resize(static_cast<size_t>(k));
  return order;
}

namespace {

constexpr int64_t kLongest = int64_t{1} << 24;

}  // namespace

LengthCurriculum::LengthCurriculum(const TaskOptions& o, int64_t shortest)
    : least(o.integer("length_min", shortest, kLongest)),
      most(o.integer("length_max", least, kLongest)),
      end(o.integer("length_end", most, kLongest)),
      step(o.integer("length_step", 1, kLongest)),
      stage_samples(o.integer("stage_samples", 1, int64_t{1} << 40)) {}

int64_t LengthCurriculum::most_at(int64_t index) const {
  const int64_t stage = std::min(index / stage_samples, (end - most + step - 1) / step);
  return std::min(end, most + stage * step);
}

std::vector<TaskOption> length_options() {
  return {{"length_min", "3", "shortest sequence"},
          {"length_max", "40", "longest sequence of the first stage"},
          {"length_end", "160", "longest sequence of the last stage"},
          {"length_step", "40", "growth of the longest sequence at each stage"},
          {"stage_samples", "2560000", "examples of a stage (10,000 steps of 256)"}};
}

}  // namespace krait::data
