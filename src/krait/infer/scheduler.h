// Which waiting tokens the next forward pass reads.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace krait {

// `pending`: unread tokens of each running sequence, oldest sequence first; `budget`: tokens of one pass, at least one
// a sequence. Single tokens (decoding, ends of prompts) all go; longer prompts share what is left, the oldest first.
// Returns the number of tokens each sequence reads now. If anything is pending, something is read.
std::vector<int64_t> schedule(std::span<const int64_t> pending, int64_t budget);

}  // namespace krait
