// Loop: an IO thread's queue of work; Core: what all connections of a server share. Has Boost inside: included by
// connection.h only.
#pragma once
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cstdint>
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

// An io_context run by one thread: what belongs to it needs no lock.
struct Loop {
  asio::io_context context{1};
  std::set<Connection*> connections;  // that thread only
  std::mutex mutex;
  bool closed = false;  // under `mutex`: the thread has ended

  // Runs `f` on the loop's thread; drops it if that has ended. Any thread.
  void post(std::function<void()> f) {
    const std::lock_guard lock(mutex);
    if (closed) return;
    asio::post(context, [this, f = std::move(f)] {
      {
        const std::lock_guard check(mutex);
        if (closed) return;
      }
      f();
    });
  }
};

// Outlives every connection and every exchange.
struct Core : ServerState {
  std::vector<std::unique_ptr<Loop>> loops;
  uint32_t id_base = 0;
  std::atomic<uint64_t> ids = 0;

  std::string new_id() { return "req_" + std::to_string(id_base) + "_" + std::to_string(++ids); }
};

}  // namespace krait::serve
