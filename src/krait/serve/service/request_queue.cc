#include "krait/serve/service/request_queue.h"

namespace krait::serve {

JobPtr RequestQueue::pop() {
  JobPtr job = jobs_.begin()->second;
  jobs_.erase(jobs_.begin());
  return job;
}

std::vector<JobPtr> RequestQueue::take_late(Time now) {
  std::vector<JobPtr> late;
  for (auto it = jobs_.begin(); it != jobs_.end();) {
    const Time own = it->second->request.max_wait;
    const bool is_late = now - it->second->queued > (own > Time(0) ? own : max_wait_);
    if (is_late) late.push_back(it->second);
    it = is_late ? jobs_.erase(it) : std::next(it);
  }
  return late;
}

std::vector<JobPtr> RequestQueue::take_all() {
  std::vector<JobPtr> all;
  for (const auto& [key, job] : jobs_) all.push_back(job);
  jobs_.clear();
  return all;
}

}  // namespace krait::serve
