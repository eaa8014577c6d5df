#include "krait/infer/scheduler.h"

#include <algorithm>

namespace krait {

std::vector<int64_t> schedule(std::span<const int64_t> pending, int64_t budget) {
  std::vector<int64_t> now(pending.size(), 0);
  for (size_t i = 0; i < pending.size(); ++i) {
    if (pending[i] != 1 || budget == 0) continue;
    now[i] = 1;
    --budget;
  }
  for (size_t i = 0; i < pending.size(); ++i) {
    if (pending[i] <= 1) continue;
    now[i] = std::min(pending[i], budget);
    budget -= now[i];
  }
  return now;
}

}  // namespace krait
