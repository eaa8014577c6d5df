// RequestQueue: jobs that wait for a slot. A larger priority counts as having come earlier, by a bounded time: so
// everybody's turn comes.
#pragma once
#include <map>
#include <vector>

#include "krait/serve/service/job.h"

namespace krait::serve {

// Not thread-safe.
class RequestQueue {
 public:
  // Between the lowest and the highest priority lies half of `max_wait`.
  explicit RequestQueue(Time max_wait) : a_priority_(max_wait / 2 / (kHighest - kLowest)), max_wait_(max_wait) {}

  static constexpr int kLowest = -100, kHighest = 100;

  void push(const JobPtr& job) { jobs_.emplace(key(*job), job); }
  bool empty() const { return jobs_.empty(); }
  int64_t size() const { return std::ssize(jobs_); }
  JobPtr pop();
  bool remove(const Job& job) { return jobs_.erase(key(job)) > 0; }
  // Takes out those that have waited too long.
  std::vector<JobPtr> take_late(Time now);
  std::vector<JobPtr> take_all();

 private:
  using Key = std::pair<Time, int64_t>;
  Key key(const Job& job) const { return {job.submitted - job.request.priority * a_priority_, job.ticket}; }

  Time a_priority_, max_wait_;
  std::map<Key, JobPtr> jobs_;
};

}  // namespace krait::serve
