// The measurements of krait bench: prompts read and tokens decoded, against what the machine could do meanwhile.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "bench_profile.h"
#include "krait/backends/cpu/roofline.h"
#include "krait/infer/score.h"
#include "krait/models/model.h"

namespace krait::cli {

struct BenchPlan {
  std::vector<int64_t> prompts{512}, decodes{128}, batches{1}, depths{0};
  int64_t repeats = 3;
  int64_t chunk = kPrefillChunk;  // tokens of a forward pass of a prompt
  bool roofline = true;           // measure the machine's limits between the runs
  bool profile = false;           // the model was made with the kernels of bench_profile.h
};

struct BenchRow {
  std::string test;              // pp512, tg128, tg64x16, tg128@d8192
  std::vector<double> runs;      // tokens a second of each repeat
  std::optional<Roofline> roof;  // the best limits measured just before, between and after them
  double bound = 0;              // tokens a second that these limits allow; 0: not known
  bool fits_in_cache = false;    // weights and states of a pass: the bound, which reads them from memory, is no limit
  int64_t passes = 1;            // forward passes of a run
  double profiled_seconds = 0;   // of the run that was profiled
  std::vector<OpCost> ops;       // of that run; empty: not profiled

  double best() const;
  double mean() const;
  double deviation() const;  // standard, of the runs
};

std::vector<BenchRow> run_bench(const BenchPlan&, const Model&);

}  // namespace krait::cli
