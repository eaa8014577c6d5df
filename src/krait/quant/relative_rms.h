// sqrt(Σ (b − a)² / Σ a²) from its two sums; infinite if only a is zero everywhere.
#pragma once
#include <cmath>

namespace krait::quant {

inline double relative_rms(double difference, double size) {
  return size > 0 ? std::sqrt(difference / size) : difference > 0 ? INFINITY : 0;
}

}  // namespace krait::quant
