#include "krait/spec/mixer_config.h"

#include <cmath>

#include "krait/core/error.h"

namespace krait {

double MixerConfig::number(std::string_view name) const {
  const auto it = values_.find(name);
  if (it == values_.end()) fail_data("[mixer] setting '" + std::string(name) + "' is missing");
  return it->second;
}

int64_t MixerConfig::integer(std::string_view name) const {
  const double v = number(name);
  if (v != std::floor(v) || std::abs(v) > 0x1p53) {
    fail_data("[mixer] setting '" + std::string(name) + "' is " + std::to_string(v) + ", not a whole number");
  }
  return static_cast<int64_t>(v);
}

}  // namespace krait
