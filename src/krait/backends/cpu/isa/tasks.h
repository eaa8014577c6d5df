// How kernels that are not matmuls cut their work. Where a cut falls never shows in the results: rows are independent,
// and so are channels.
#pragma once
#include "krait/kernels/exec.h"

namespace krait::KRAIT_ISA {

// Work, in vector instructions, below which handing a task to another thread does not pay (about 2 µs).
constexpr int64_t kTaskMin = 6000;

// body(i) for i in [0, n), where one i costs about `cost` vector instructions.
template <class F>
void parallel_items(const Exec& exec, int64_t n, int64_t cost, F body) {
  const int64_t per = 1 + kTaskMin / (cost + 1);  // items of a task
  exec.pool->parallel_for((n + per - 1) / per, [&](int64_t task) {
    const int64_t end = (task + 1) * per < n ? (task + 1) * per : n;
    for (int64_t i = task * per; i < end; ++i) body(i);
  });
}

}  // namespace krait::KRAIT_ISA
