// Fork-join pool: run() splits n tasks over the caller and the workers and returns when all are done.
// Tasks are claimed one by one, so a slow or preempted thread takes fewer; which thread runs a task never changes
// what the task computes. Workers spin for a few microseconds between runs and then sleep in the kernel.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace krait {

class ThreadPool {
 public:
  using Task = void (*)(void* context, int64_t index);

  explicit ThreadPool(int n_threads);  // the caller counts as one; n_threads >= 1
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls task(context, i) once for each i in [0, n). Tasks must not throw. Not re-entrant: a task must not call run().
  // Calls from several threads at once are served one after the other.
  void run(int64_t n, Task task, void* context);

  template <class F>
  void parallel_for(int64_t n, F&& body) {
    run(n, [](void* c, int64_t i) { (*static_cast<std::remove_reference_t<F>*>(c))(i); }, &body);
  }

  static int default_threads();  // CPUs this process may use (affinity and cgroup quota), at least 1

 private:
  void worker();
  void work(uint64_t generation);

  std::vector<std::jthread> workers_;
  std::mutex run_mutex_;
  Task task_ = nullptr;
  void* context_ = nullptr;
  int64_t n_ = 0;
  // Upper 32 bits: generation, lower 32: next unclaimed index. One word, so that a worker late from an earlier run
  // can never claim an index of the present one with the earlier task.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int64_t> unfinished_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<uint32_t> sleepers_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace krait
