#include "krait/infer/scheduler.h"

#include <algorithm>

namespace krait {

std::vector<int64_t> schedule(std::span<const Unread> sequences, int64_t budget, int64_t prompt_budget) {
  std::vector<int64_t> now(sequences.size(), 0);
  std::vector<size_t> prompts;
  bool written = false;
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i].tokens == 0) continue;
    if (!sequences[i].writing) {
      prompts.push_back(i);
    } else if (budget > 0) {
      now[i] = 1;
      --budget;
      written = true;
    }
  }
  if (prompts.empty()) return now;
  int64_t left = std::min(budget, written ? prompt_budget : std::max<int64_t>(prompt_budget, 1));
  const auto give = [&](size_t i, int64_t most) {
    const int64_t n = std::min({sequences[i].tokens - now[i], most, left});
    now[i] += n;
    left -= n;
  };
  const size_t oldest = prompts.front();
  give(oldest, left - left / 2);
  std::ranges::stable_sort(prompts, {}, [&](size_t i) { return sequences[i].tokens; });
  for (const size_t i : prompts)
    if (i != oldest) give(i, left);
  give(oldest, left);
  return now;
}

}  // namespace krait
