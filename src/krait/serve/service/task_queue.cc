#include "krait/serve/service/task_queue.h"

#include <utility>

namespace krait::serve {

void TaskQueue::post(Task task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  there_.notify_one();
}

bool TaskQueue::next(Task& task, bool wait) {
  std::unique_lock lock(mutex_);
  if (wait) there_.wait(lock, [&] { return closed_ || !tasks_.empty(); });
  if (tasks_.empty()) return false;
  task = std::move(tasks_.front());
  tasks_.pop_front();
  return true;
}

bool TaskQueue::drain() {
  bool any = false;
  for (Task task; next(task, false); task = nullptr) {
    task();
    any = true;
  }
  return any;
}

void TaskQueue::run() {
  for (Task task; next(task, true); task = nullptr) task();
}

void TaskQueue::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  there_.notify_all();
}

}  // namespace krait::serve
