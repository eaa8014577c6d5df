// Which waiting tokens the next forward pass reads.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace krait {

// What a running sequence has not read yet.
struct Unread {
  int64_t tokens = 0;
  bool writing = false;  // the token it has just chosen; otherwise part of its prompt
};

// `sequences`: oldest first; `budget`: tokens of one pass, at least one a sequence; `prompt_budget`: of them, of
// prompts (0: none while others write). All that write go on. Of what is left for prompts, the oldest takes one half
// and the others, shortest first, the other half: neither does a long prompt block short ones, nor do short ones starve
// it. Returns the number of tokens each sequence reads now. If anything is unread, something is read.
std::vector<int64_t> schedule(std::span<const Unread> sequences, int64_t budget, int64_t prompt_budget);

}  // namespace krait
