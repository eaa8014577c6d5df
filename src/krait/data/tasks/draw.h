// Random choices that several tasks make.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "krait/core/rng.h"
#include "krait/data/tasks/task.h"

namespace krait::data {

// Uniform in first .. last, both included.
inline int64_t draw_between(Rng& rng, int64_t first, int64_t last) {
  return first + static_cast<int64_t>(rng.below(static_cast<uint64_t>(last - first + 1)));
}

// k different numbers of 0 .. n-1 in random order (Floyd's sample, then a shuffle), in O(k log k) time and space.
std::vector<int64_t> draw_distinct(Rng& rng, int64_t n, int64_t k);

// k different indices of `weights` (all > 0), as if drawn one after another in proportion to them among those left:
// those with the least exponential arrival times (Efraimidis and Spirakis, 2006).
std::vector<int64_t> draw_weighted(Rng& rng, const std::vector<double>& weights, int64_t k);

// Lengths uniform in least .. most, where most grows by `step` every `stage_samples` examples, up to `end`.
struct LengthCurriculum {
  int64_t least, most, end, step, stage_samples;

  explicit LengthCurriculum(const TaskOptions&, int64_t shortest);
  int64_t most_at(int64_t index) const;
  int64_t draw(Rng& rng, int64_t index) const { return draw_between(rng, least, most_at(index)); }
};
// Its options: lengths 3 to 40, growing to 160, 1e4 steps of 256 a stage (spec of Mamba-3's state tracking).
std::vector<TaskOption> length_options();

}  // namespace krait::data
