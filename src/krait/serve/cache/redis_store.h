// RedisStore: a Store in Redis (4.0 or later), shared by all replicas. docs/formats.md, "Conversation logs".
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "krait/serve/cache/store.h"

namespace krait::serve {

struct RedisStoreOptions {
  std::string url;  // redis://[[user]:password@]host[:port][/db] or unix:[//[[user]:password@]]/path[?db=N]
  std::string prefix = "krait:";  // of every key
  std::chrono::milliseconds connect_timeout{500};
  std::chrono::milliseconds timeout{5'000};  // of one command
  std::chrono::milliseconds retry{1'000};    // while it is down: between attempts; calls fail at once in between
  int64_t connections = 4;                   // at most, at one time
  // For the log: failures and damage. On any thread; must not throw.
  std::function<void(const std::string& what)> report = {};
};

struct RedisAddress {
  std::string host, path;  // one of them
  int port = 6379, db = 0;
  std::string user, password;
};
// Throws Error kUsage, without the password, if it is no such URL.
RedisAddress parse_redis_url(const std::string& url);

// Throws Error kUsage for a bad URL. Redis may be down: every call then throws 503 until it is back.
std::unique_ptr<Store> open_redis_store(RedisStoreOptions options);

}  // namespace krait::serve
