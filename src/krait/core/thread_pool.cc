#include "krait/core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <string>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace krait {
namespace {

// About 5 µs of polling: longer than the gap between two kernels of a layer, far shorter than a scheduler slice, so
// a pool that shares its cores with another process gives them up instead of burning them.
constexpr int kSpins = 200;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int n_threads) {
  workers_.reserve(static_cast<size_t>(std::max(0, n_threads - 1)));
  for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this] { worker(); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_seq_cst);
  generation_.notify_all();
}

// Claims indices while the ticket still belongs to `generation`. task_, context_ and n_ are read only after a claim
// made sure that the run they belong to cannot have ended.
void ThreadPool::work(uint64_t generation) {
  uint64_t t = ticket_.load(std::memory_order_acquire);
  while ((t >> 32) == generation) {
    const auto left = static_cast<uint32_t>(t);
    if (left == 0) return;
    if (!ticket_.compare_exchange_weak(t, t - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    task_(context_, n_ - left);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
    t = ticket_.load(std::memory_order_acquire);
  }
}

void ThreadPool::worker() {
  uint32_t seen = 0;
  while (true) {
    uint32_t now = generation_.load(std::memory_order_acquire);
    for (int i = 0; now == seen && i < kSpins; ++i) {
      pause();
      now = generation_.load(std::memory_order_acquire);
    }
    if (now == seen) {
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      generation_.wait(seen, std::memory_order_seq_cst);
      sleepers_.fetch_sub(1, std::memory_order_relaxed);
      continue;
    }
    if (stop_.load(std::memory_order_relaxed)) return;
    seen = now;
    work(now);
  }
}

void ThreadPool::run(int64_t n, Task task, void* context) {
  if (n <= 0) return;
  if (workers_.empty() || n == 1) {
    for (int64_t i = 0; i < n; ++i) task(context, i);
    return;
  }
  const std::lock_guard lock(run_mutex_);
  constexpr int64_t kMost = 0x7FFFFFFF;  // indices of one ticket
  for (int64_t base = 0; base < n; base += kMost) {
    struct Shifted {
      Task task;
      void* context;
      int64_t base;
    } shifted{task, context, base};
    const int64_t part = std::min(n - base, kMost);
    task_ = [](void* c, int64_t i) {
      const auto* s = static_cast<const Shifted*>(c);
      s->task(s->context, s->base + i);
    };
    context_ = &shifted;
    n_ = part;
    unfinished_.store(part, std::memory_order_relaxed);
    const uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
    ticket_.store((uint64_t{generation} << 32) | static_cast<uint64_t>(part), std::memory_order_release);
    generation_.store(generation, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) != 0) generation_.notify_all();
    work(generation);
    int64_t left = unfinished_.load(std::memory_order_acquire);
    for (int i = 0; left != 0 && i < kSpins; ++i) {
      pause();
      left = unfinished_.load(std::memory_order_acquire);
    }
    while (left != 0) {
      unfinished_.wait(left, std::memory_order_acquire);
      left = unfinished_.load(std::memory_order_acquire);
    }
  }
}

int ThreadPool::default_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set)
                                                       : static_cast<int>(std::thread::hardware_concurrency());
  std::ifstream quota("/sys/fs/cgroup/cpu.max");  // cgroup v2: "max 100000" or "150000 100000"
  std::string limit;
  double period = 0;
  if (quota >> limit >> period && limit != "max" && period > 0) {
    n = std::min(n, static_cast<int>(std::max(1.0, std::stod(limit) / period + 0.5)));
  }
  return std::max(1, n);
}

}  // namespace krait
