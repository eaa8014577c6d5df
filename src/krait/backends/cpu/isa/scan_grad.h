// How the gradients of a scan are spread over threads. A task walks a few heads or channels of one sequence. What B and
// C get from it goes to rows of its own, what the parameters get to sums of its sequence; both are then added in a
// fixed order - rows in the order of a sequence's tasks, sums in the order of the sequences - so that neither threads
// nor the way sequences are spread over calls show in the results.
#pragma once
#include "krait/backends/cpu/isa/integers.h"
#include "krait/backends/cpu/isa/tasks.h"
#include "krait/backends/cpu/isa/vec.h"
#include "krait/backends/cpu/workspace.h"

namespace krait::KRAIT_ISA {

constexpr int64_t whole_vectors(int64_t n) { return ceil_div(n, kLanes) * kLanes; }

struct ScanTask {
  int64_t s, i;           // task i of sequence s
  int64_t first, length;  // its tokens
  float* rows;            // [length][row], contents unspecified
  float* sums;            // of the sequence, contents unspecified; a task sees to its own part
};

struct ScanWork {
  int64_t tasks;  // of a sequence
  int64_t row;    // floats of a task for a token
  int64_t sums;   // floats of a sequence
};

// run(task) for all tasks; then add_rows(t, rows, stride) for each token t, whose row of the sequence's task i stands
// at rows + i·stride; then add_sums(sums) for each sequence. Memory: that of a few tasks a thread.
template <class Run, class AddRows, class AddSums>
void scan_gradients(const Exec& exec, const SpanView& spans, const ScanWork& w, Run run, AddRows add_rows,
                    AddSums add_sums) {
  constexpr int64_t kTasksPerThread = 4;
  const int64_t at_once = ceil_div(kTasksPerThread * exec.pool->n_threads(), w.tasks);  // sequences
  for (int64_t s0 = 0; s0 < spans.n_seqs; s0 += at_once) {
    const int64_t s1 = min(s0 + at_once, spans.n_seqs), t0 = spans.offset[s0], tokens = spans.offset[s1] - t0;
    const int64_t rows_size = tokens * w.tasks * w.row;
    auto* rows = static_cast<float*>(call_workspace(static_cast<size_t>(rows_size + (s1 - s0) * w.sums) * 4));
    const auto task_of = [&](int64_t s, int64_t i) -> ScanTask {
      const int64_t first = spans.offset[s], length = spans.offset[s + 1] - first;
      return {s,
              i,
              first,
              length,
              rows + ((first - t0) * w.tasks + i * length) * w.row,
              rows + rows_size + (s - s0) * w.sums};
    };
    exec.pool->parallel_for((s1 - s0) * w.tasks, [&](int64_t k) {
      const ScanTask task = task_of(s0 + k / w.tasks, k % w.tasks);
      if (task.length > 0) run(task);
    });
    for (int64_t s = s0; s < s1; ++s) {
      const ScanTask task = task_of(s, 0);
      if (task.length == 0) continue;
      parallel_items(exec, task.length, w.tasks * w.row / kLanes,
                     [&](int64_t t) { add_rows(task.first + t, task.rows + t * w.row, task.length * w.row); });
      add_sums(task.sums);
    }
  }
}

// to [n] += from, in whole vectors but the last
KRAIT_INLINE void add_row(float* to, const float* from, int64_t n) {
  for_vectors(n, [&](int64_t i, auto lanes) { store(to + i, add(load(to + i, lanes), load(from + i, lanes)), lanes); });
}

}  // namespace krait::KRAIT_ISA
