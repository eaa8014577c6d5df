// What this machine can do at most, measured: the yardstick that speeds are quoted against.
#pragma once
#include "krait/core/thread_pool.h"

namespace krait {

// All threads of the pool together, best of several short runs, with the best instruction set of the CPU.
// With one thread, time is that thread's processor time, which leaves out what other processes took; else time of day.
// A multiply-add counts as two operations; G is 10^9, GB is 10^9 bytes.
struct Roofline {
  double f32_gflops;   // fused multiply-adds that stay in registers
  double bf16_gflops;  // bf16 dot instructions with f32 sums; without them bf16 is widened and the limit is f32_gflops
  double int8_gops;    // 8-bit dot instructions with 32-bit sums; without them the best sequence of multiply-adds
  double read_gb_per_s;  // bytes read from an array of at least 512 MB and four times the last cache
  double copy_gb_per_s;  // bytes read plus bytes written, by stores that bypass the caches where there are any
};

// Takes a few seconds, and memory for the array (a quarter of what is free at most).
Roofline measure_roofline(ThreadPool& pool);

}  // namespace krait
