// How kernels that are not matmuls cut their work. Where a cut falls never shows in the results: rows are independent,
// and so are channels.
#pragma once
#include "krait/kernels/exec.h"

namespace krait::KRAIT_ISA {

// Work, in vector instructions, below which handing a task to another thread does not pay (about 2 µs).
constexpr int64_t kTaskMin = 6000;

// body(i) for i in [0, n), where one i costs about `cost` vector instructions. Tasks are a multiple of the threads, so
// that none is left over for one thread alone.
template <class F>
void parallel_items(const Exec& exec, int64_t n, int64_t cost, F body) {
  const int64_t threads = exec.pool->n_threads(), least = 1 + kTaskMin / (cost + 1);  // items of a task
  int64_t tasks = (n + least - 1) / least;
  if (tasks >= threads) tasks = (tasks + threads - 1) / threads * threads;
  const int64_t per = (n + tasks - 1) / (tasks > 0 ? tasks : 1);
  exec.pool->parallel_for(per > 0 ? (n + per - 1) / per : 0, [&](int64_t task) {
    const int64_t end = (task + 1) * per < n ? (task + 1) * per : n;
    for (int64_t i = task * per; i < end; ++i) body(i);
  });
}

}  // namespace krait::KRAIT_ISA
