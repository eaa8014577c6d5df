// Loop: an IO thread's queue of work; Core: what all connections of a server share. Has Boost inside: included by
// connection.h only.
#pragma once
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "krait/serve/http/answer.h"

namespace krait::serve {

namespace asio = boost::asio;

class Connection;

// An io_context run by one thread: what belongs to it needs no lock. What others post is gathered, so that the thread
// is woken once for all that comes while it is on its way: a pass of the engine has news for every stream.
class Loop {
 public:
  asio::io_context context{1};
  std::set<Connection*> connections;  // that thread only

  // Runs `f` on the loop's thread; drops it if that has ended. Any thread.
  void post(std::function<void()> f) {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    posted_.push_back(std::move(f));
    if (std::exchange(scheduled_, true)) return;
    asio::post(context, [this] { run_posted(); });
  }
  // The thread has ended: what was posted since then is dropped, and with it what it held.
  void close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    context.restart();
    context.poll();
    run_posted();
  }

 private:
  void run_posted() {
    std::deque<std::function<void()>> now;
    bool drop = false;
    {
      const std::lock_guard lock(mutex_);
      std::swap(now, posted_);
      scheduled_ = false;
      drop = closed_;
    }
    for (; !now.empty(); now.pop_front()) {
      if (!drop) now.front()();
    }
  }

  std::mutex mutex_;  // of all below
  bool closed_ = false, scheduled_ = false;
  std::deque<std::function<void()>> posted_;
};

// Outlives every connection and every exchange.
struct Core : ServerState {
  std::vector<std::unique_ptr<Loop>> loops;
  uint32_t id_base = 0;
  std::atomic<uint64_t> ids = 0;

  std::string new_id() { return "req_" + std::to_string(id_base) + "_" + std::to_string(++ids); }
};

}  // namespace krait::serve
