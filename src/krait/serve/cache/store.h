// Store: where conversations outlive the process: named blobs that may be lost at any time (states), and logs of
// records that may not (turns). Implemented by a folder (DiskStore) and by Redis (RedisStore).
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace krait::serve {

// Keys: segments of 1 .. 200 of [A-Za-z0-9_-], divided by "/". A `ttl` of 0: until it is erased. All members are
// thread-safe, may block, and throw ServeError 503 "store_unavailable" if the store cannot be reached, is full, …;
// nothing is then half done.
class Store {
 public:
  virtual ~Store() = default;

  // Blobs. Each carries a checksum; a corrupt one is erased, counted and reported as absent with `corrupt` set.
  struct Blob {
    std::optional<std::string> bytes;
    bool corrupt = false;
  };
  virtual Blob get(const std::string& key) = 0;
  virtual void put(const std::string& key, std::string_view bytes, std::chrono::seconds ttl) = 0;
  virtual void erase(const std::string& key) = 0;  // no error if it is not there

  // Logs: only ever appended to. append() returns when the record is durable (synced; acknowledged by Redis) and throws
  // ServeError 409 "conversation_changed" if the log does not have `expected` records: somebody else was there.
  // A tail cut off by a crash is dropped when the log is read; a corrupt record ends it there, and is reported.
  struct Log {
    std::vector<std::string> records;
    bool corrupt = false;
  };
  virtual Log read_log(const std::string& key, int64_t from = 0) = 0;  // empty: there is none
  virtual int64_t log_size(const std::string& key) = 0;
  virtual void append(const std::string& key, int64_t expected, std::string_view record, std::chrono::seconds ttl) = 0;
  // The whole log at once, all or nothing; 409 as with append().
  virtual void replace_log(const std::string& key, int64_t expected, const std::vector<std::string>& records,
                           std::chrono::seconds ttl) = 0;
  virtual void touch_log(const std::string& key, std::chrono::seconds ttl) = 0;  // its time begins again
  virtual void erase_log(const std::string& key) = 0;
  struct LogName {
    std::string key;
    int64_t used = 0;  // when it was last appended to or touched: comparable within one store, larger is later
  };
  virtual std::vector<LogName> list_logs(const std::string& folder) = 0;  // keys folder/NAME; last used first

  // Leases: at most one holder of a name, across all processes that share the store; lost after `time` without
  // renewal (a holder that was killed). Null: held by somebody else.
  class Lease {
   public:
    virtual ~Lease() = default;  // gives it back
    virtual bool renew() = 0;    // false: lost
  };
  virtual std::unique_ptr<Lease> lease(const std::string& name, std::chrono::milliseconds time) = 0;

  // Blobs and logs whose time is over (Redis does it by itself). Called now and then.
  virtual void expire() = 0;

  struct Stats {
    int64_t blobs = 0, logs = 0, bytes = 0;  // now
    int64_t corrupt = 0, errors = 0;         // since the start
    std::string last_error;                  // with what a client is not told (paths)
  };
  virtual Stats stats() = 0;
};

void check_store_key(const std::string& key);  // kInternal: not such a key as above

}  // namespace krait::serve
