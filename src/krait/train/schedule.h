// LrSchedule: the learning rate as a function of the step.
#pragma once
#include <cstdint>
#include <string>

namespace krait::train {

struct LrSchedule {
  enum class Shape : uint8_t {
    kConstant,
    kCosine,  // from peak to final by half a cosine
    kLinear,  // from peak to final
    kWsd,     // warm-up, stable at peak, decay: the last `decay` steps go linearly to final
  };
  Shape shape = Shape::kCosine;
  double peak = 1e-3, final = 0;
  int64_t steps = 1;   // of the whole run
  int64_t warmup = 0;  // steps of a linear rise from peak / warmup to peak
  int64_t decay = 0;   // kWsd only

  // Of the update that makes step `step` + 1, step = 0, 1, …; after the end: the last one.
  double at(int64_t step) const;

  static Shape shape_of(const std::string& name);  // "constant", "cosine", "linear", "wsd"; throws kUsage
};

}  // namespace krait::train
