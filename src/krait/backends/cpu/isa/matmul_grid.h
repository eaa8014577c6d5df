// How a matmul shares its output out: panels of columns first, then pieces of rows. Where a cut falls never shows in
// the results.
#pragma once
#include "krait/backends/cpu/isa/integers.h"

namespace krait::KRAIT_ISA {

struct Grid {
  int64_t panels, panels_per_task, tasks_n;  // of columns
  int64_t pieces, pieces_per_task;           // of rows

  int64_t tasks() const { return tasks_n * ceil_div(pieces, pieces_per_task); }
  int64_t first_panel(int64_t task) const { return task % tasks_n * panels_per_task; }
  int64_t end_panel(int64_t task) const { return min(panels, first_panel(task) + panels_per_task); }
  int64_t first_piece(int64_t task) const { return task / tasks_n * pieces_per_task; }
  int64_t end_piece(int64_t task) const { return min(pieces, first_piece(task) + pieces_per_task); }
};

// Enough tasks to balance the threads. A task has `most` panels, or fewer down to `least` where there would be too few
// tasks; one of less than `task_min` products costs less than handing it out. `products`: of one panel.
inline Grid make_grid(int64_t panels, int64_t pieces, int64_t threads, int64_t most, int64_t least, int64_t products,
                      int64_t task_min) {
  const int64_t want = threads == 1 ? 1 : 4 * threads;
  int64_t g = most;
  while (g > least && ceil_div(panels, g) < want && g / 2 * products >= task_min) g /= 2;
  const int64_t tasks_n = ceil_div(panels, g);
  const int64_t splits = min(pieces, ceil_div(want, tasks_n));
  return {panels, g, tasks_n, pieces, ceil_div(pieces, splits)};
}

}  // namespace krait::KRAIT_ISA
