// What this machine can do at most, measured: the yardstick that speeds are quoted against.
#pragma once
#include <memory>
#include <string_view>

#include "krait/core/thread_pool.h"

namespace krait {

// All threads of the pool together, best of several short runs, with the best instruction set of the CPU or that of a
// kernel set.
// With one thread, time is that thread's processor time, which leaves out what other processes took; else time of day.
// A multiply-add counts as two operations; G is 10^9, GB is 10^9 bytes.
struct Roofline {
  double f32_gflops;   // fused multiply-adds that stay in registers
  double bf16_gflops;  // bf16 dot instructions with f32 sums; without them bf16 is widened and the limit is f32_gflops
  double int8_gops;    // 8-bit dot instructions with 32-bit sums; without them the best sequence of multiply-adds
  double read_gb_per_s;  // bytes read from an array of at least 512 MB and four times the last cache
  double copy_gb_per_s;  // bytes read plus bytes written, by stores that bypass the caches where there are any
};

Roofline better(const Roofline& a, const Roofline& b);  // the higher of both in everything

// Measures again and again, for limits that vary from minute to minute. Holds the array: a quarter of what memory is
// free at most.
class RooflineMeter {
 public:
  // `kernels`: the set whose instructions are used, as "cpu-avx2"; any other name: the best of this CPU.
  explicit RooflineMeter(ThreadPool& pool, std::string_view kernels = {});
  ~RooflineMeter();
  RooflineMeter(const RooflineMeter&) = delete;
  RooflineMeter& operator=(const RooflineMeter&) = delete;
  Roofline sample();  // best of three short runs of each loop; about 0.2 s

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

int64_t last_cache_bytes();  // of one socket, as the system says; 0: not known

double measure_f32_gflops(ThreadPool& pool);  // Roofline::f32_gflops alone, in a tenth of a second

Roofline measure_roofline(ThreadPool& pool);  // the best of four samples: about a second

}  // namespace krait
