// TaskQueue: work for one thread, in order. Without a thread, somebody calls drain().
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

namespace krait::serve {

class TaskQueue {
 public:
  using Task = std::function<void()>;  // must not throw

  void post(Task task);
  // Runs what is there, and what comes meanwhile. False: there was nothing.
  bool drain();
  // Runs tasks as they come, until close(); then what is left.
  void run();
  void close();

 private:
  bool next(Task& task, bool wait);

  std::mutex mutex_;
  std::condition_variable there_;
  std::deque<Task> tasks_;
  bool closed_ = false;
};

}  // namespace krait::serve
