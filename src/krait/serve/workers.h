// Workers: a few threads for what may block (stores, long texts), so that neither the engine's thread nor the IO
// threads do.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace krait::serve {

class Workers {
 public:
  explicit Workers(int threads);
  ~Workers();  // finishes what was posted
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  void post(std::function<void()> job);  // must not throw

 private:
  void work();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;
  bool stop_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace krait::serve
