// The exactness contract (docs/design.md §1.3), tested on a model as it stands: however a sequence is split, batched,
// packed, interrupted, saved, forked or spread over threads, every bit of its logits and states is the same.
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "krait/models/model.h"

namespace krait {

struct VerifyRow {
  std::string check;
  int64_t cases = 0, different = 0;
  std::string first;  // of the cases that differ: where, and in what; empty if all are bit-equal
};

struct VerifyOptions {
  bool quick = false;            // samples the splits, batches and points instead of trying all
  int64_t length = 257;          // of the prompt; >= 8
  uint64_t seed = 1;             // of the prompts and points
  std::filesystem::path folder;  // for a state file; must exist
  std::vector<int> threads = {1, 2};
  std::function<void(int64_t cases_done, int64_t cases_in_all)> progress;
};

std::vector<VerifyRow> verify(const Model&, const VerifyOptions&);

}  // namespace krait
