// For tests: how time grows with length, which no machine's speed and no other process shows in.
#pragma once
#include <algorithm>
#include <ctime>

namespace krait::text {

// Processor time of work(16 n) over that of work(n), the longest of three runs: 16 for what is linear, 256 for what is
// quadratic.
template <class F>
double growth_of_16_times(F&& work, size_t n) {
  const auto seconds = [&](size_t size) {
    const std::clock_t start = std::clock();
    work(size);
    return static_cast<double>(std::clock() - start + 1) / CLOCKS_PER_SEC;
  };
  const double small = std::max({seconds(n), seconds(n), seconds(n)});
  return seconds(16 * n) / small;
}

}  // namespace krait::text
