// RedisPool: connections to one Redis, made when they are needed, with time limits; while it is down, calls fail at
// once and one a second tries again.
#pragma once
#include <hiredis/hiredis.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "krait/serve/cache/redis_store.h"

namespace krait::serve {

struct FreeReply {
  void operator()(redisReply* r) const { freeReplyObject(r); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

class RedisPool {
 public:
  explicit RedisPool(const RedisStoreOptions& options);

  // One command with its arguments. Sent once more over a new connection if the old one turns out to be closed: it must
  // do no harm to run it twice. Throws Error kFailed with the reason if Redis cannot be reached or answers with an
  // error.
  Reply run(const std::vector<std::string_view>& command);

 private:
  struct Close {
    void operator()(redisContext* c) const { redisFree(c); }
  };
  using Connection = std::unique_ptr<redisContext, Close>;

  Connection take();
  void give(Connection connection);  // null: one less
  Connection connect() const;
  Reply try_run(redisContext* connection, const std::vector<std::string_view>& command) const;
  void down(const std::string& why);

  const RedisStoreOptions options_;
  const RedisAddress address_;
  std::mutex mutex_;
  std::condition_variable free_;
  std::vector<Connection> idle_;
  int64_t open_ = 0;
  std::chrono::steady_clock::time_point down_until_{};
  std::string why_;
};

}  // namespace krait::serve
