// What the bench programs share: command line, timing that interleaves its cases, random data.
#pragma once
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "krait/backends/cpu/cpu_backend.h"
#include "krait/backends/cpu/roofline.h"
#include "krait/core/half.h"
#include "krait/core/rng.h"
#include "krait/core/tensor.h"

namespace krait::bench {

struct Case {
  std::string name;
  std::function<void()> run;
  double seconds = 1e300;  // best time of one run
};

// Seconds on the clock that a case is timed with: with one thread that thread's processor time, which leaves out what
// other processes took, else the time of day.
inline double seconds_now(bool one_thread) {
  timespec t{};
  clock_gettime(one_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Times `rounds` rounds of all cases, one after the other in each round, so that a disturbance of the machine hits all
// alike; a measurement repeats its case for about 2 ms. Keeps the best; the first round warms up.
inline void interleave(std::vector<Case>& cases, int rounds, bool one_thread) {
  for (int round = 0; round < rounds; ++round) {
    for (Case& c : cases) {
      int64_t runs = 0;
      const double start = seconds_now(one_thread);
      double now = start;
      while (now - start < 2e-3) {
        c.run();
        ++runs;
        now = seconds_now(one_thread);
      }
      if (round > 0) c.seconds = std::min(c.seconds, (now - start) / static_cast<double>(runs));
    }
  }
}

// Normal numbers, as many as fit; f32, bf16 or f16. Repeats one block of 4096.
inline Tensor random(const Shape& shape, DType dtype = DType::kF32, uint64_t seed = 1) {
  Tensor t = Tensor::empty(shape, dtype);
  Rng rng(seed);
  std::vector<float> block(4096);
  for (float& f : block) f = static_cast<float>(rng.normal());
  for (int64_t i = 0; i < t.numel(); ++i) {
    const float f = block[static_cast<size_t>(i) % block.size()];
    if (dtype == DType::kF32) {
      reinterpret_cast<float*>(t.bytes())[i] = f;
    } else {
      reinterpret_cast<uint16_t*>(t.bytes())[i] = dtype == DType::kBF16 ? f32_to_bf16(f) : f32_to_f16(f);
    }
  }
  return t;
}

struct Options {
  int threads = ThreadPool::default_threads();
  int rounds = 12;
};

// [threads [rounds]]
inline Options options(int argc, char** argv) {
  Options o;
  if (argc > 1) o.threads = std::max(1, std::atoi(argv[1]));
  if (argc > 2) o.rounds = std::max(2, std::atoi(argv[2]));
  return o;
}

}  // namespace krait::bench
