// Integer arithmetic of the drivers. Not from <algorithm>: isa/ includes no inline functions of others.
#pragma once
#include <stdint.h>

namespace krait::KRAIT_ISA {

constexpr int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace krait::KRAIT_ISA
