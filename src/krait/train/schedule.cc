#include "krait/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "krait/core/error.h"

namespace krait::train {

double LrSchedule::at(int64_t step) const {
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  const int64_t first = shape == Shape::kWsd ? std::max(warmup, steps - decay) : warmup;
  const auto length = static_cast<double>(std::max<int64_t>(steps - first, 1));
  const double done = std::clamp(static_cast<double>(step - first) / length, 0.0, 1.0);
  switch (shape) {
    case Shape::kConstant:
      return peak;
    case Shape::kCosine:
      return final + (peak - final) * 0.5 * (1 + std::cos(std::numbers::pi * done));
    case Shape::kLinear:
    case Shape::kWsd:
      return peak + (final - peak) * done;
  }
  return peak;
}

LrSchedule::Shape LrSchedule::shape_of(const std::string& name) {
  if (name == "constant") return Shape::kConstant;
  if (name == "cosine") return Shape::kCosine;
  if (name == "linear") return Shape::kLinear;
  if (name == "wsd") return Shape::kWsd;
  fail_usage("[train] schedule is '" + name + "', expected constant, cosine, linear or wsd");
}

}  // namespace krait::train
