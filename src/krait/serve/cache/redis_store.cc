#include "krait/serve/cache/redis_store.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <atomic>
#include <charconv>
#include <cstring>
#include <mutex>
#include <random>

#include "krait/core/error.h"
#include "krait/io/bytes.h"
#include "krait/serve/cache/redis_connection.h"
#include "krait/serve/serve_error.h"

namespace krait::serve {
namespace {

using std::chrono::seconds;

// Every script is atomic. KEYS: the log, and the folder's set of logs by the time (s) of their last use. ARGV[1]: time
// to live in seconds, 0 for ever.
constexpr std::string_view kTouch = R"lua(
local function touch(key, ttl)
  local now = redis.call('TIME')
  redis.call('ZADD', KEYS[2], now[1] + now[2] / 1000000, key)
  if tonumber(ttl) > 0 then
    redis.call('EXPIRE', KEYS[1], ttl)
  else
    redis.call('PERSIST', KEYS[1])
  end
end
)lua";
// ARGV: ttl, name in the set, expected size, record. A record that is there already, at that place and with its token,
// was appended by this very call before its connection broke.
constexpr std::string_view kAppend = R"lua(
local n = redis.call('LLEN', KEYS[1])
if n == ARGV[3] + 1 and redis.call('LINDEX', KEYS[1], -1) == ARGV[4] then return -1 end
if n ~= tonumber(ARGV[3]) then return n end
redis.call('RPUSH', KEYS[1], ARGV[4])
touch(ARGV[2], ARGV[1])
return -1
)lua";
// ARGV: ttl, name, expected size, records…
constexpr std::string_view kReplace = R"lua(
local n = redis.call('LLEN', KEYS[1])
local wanted = #ARGV - 3
if n == wanted and n > 0 and redis.call('LINDEX', KEYS[1], -1) == ARGV[#ARGV] then return -1 end
if n ~= tonumber(ARGV[3]) then return n end
redis.call('DEL', KEYS[1])
for i = 4, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[i]) end
touch(ARGV[2], ARGV[1])
return -1
)lua";
constexpr std::string_view kTouchLog = R"lua(
if redis.call('EXISTS', KEYS[1]) == 1 then touch(ARGV[2], ARGV[1]) end
return -1
)lua";
constexpr std::string_view kEraseLog = R"lua(
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[2])
return -1
)lua";
// KEYS: the folder's set. ARGV: what the names of its logs begin with. Those that are too old have gone by themselves.
constexpr std::string_view kList = R"lua(
local out = {}
for _, name in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, -1)) do
  if redis.call('EXISTS', ARGV[1] .. name) == 1 then
    out[#out + 1] = name
    out[#out + 1] = redis.call('ZSCORE', KEYS[1], name)
  else
    redis.call('ZREM', KEYS[1], name)
  end
end
return out
)lua";
constexpr std::string_view kRenew = R"lua(
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
)lua";
constexpr std::string_view kRelease = R"lua(
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
)lua";

constexpr size_t kChecksum = 8, kToken = 8;  // bytes before a blob; before a record, checksum and token

std::string checked(const std::string& key, std::string_view body) {
  const uint64_t sum = XXH3_64bits_withSeed(body.data(), body.size(), XXH3_64bits(key.data(), key.size()));
  std::string s(reinterpret_cast<const char*>(&sum), sizeof sum);
  return s += body;
}

std::optional<std::string_view> check(const std::string& key, std::string_view s) {
  if (s.size() < kChecksum || checked(key, s.substr(kChecksum)).compare(0, kChecksum, s.substr(0, kChecksum)) != 0) {
    return {};
  }
  return s.substr(kChecksum);
}

std::string_view text_of(const redisReply& r) { return {r.str, r.len}; }

class RedisStore : public Store {
 public:
  explicit RedisStore(const RedisStoreOptions& options)
      : prefix_(options.prefix), report_(options.report), pool_(options) {
    std::random_device random;
    token_ = (uint64_t{random()} << 32) ^ random();
  }

  Blob get(const std::string& key) override {
    const Reply r = run({"GET", name("b:", key)});
    if (r->type != REDIS_REPLY_STRING) return {};
    const auto body = check(key, text_of(*r));
    if (body) return {.bytes = std::string(*body)};
    run({"DEL", name("b:", key)});
    count_corrupt(key);
    return {.bytes = {}, .corrupt = true};
  }

  void put(const std::string& key, std::string_view bytes, seconds ttl) override {
    const std::string value = checked(key, bytes);
    if (ttl.count() > 0) {
      run({"SET", name("b:", key), value, "EX", std::to_string(ttl.count())});
    } else {
      run({"SET", name("b:", key), value});
    }
  }

  void erase(const std::string& key) override { run({"DEL", name("b:", key)}); }

  Log read_log(const std::string& key, int64_t from) override {
    const Reply r = run({"LRANGE", name("l:", key), std::to_string(from), "-1"});
    Log log;
    for (size_t i = 0; i < r->elements; ++i) {
      const auto body = check(key, text_of(*r->element[i]));
      if (!body || body->size() < kToken) {
        log.corrupt = true;
        count_corrupt(key);
        break;
      }
      log.records.emplace_back(body->substr(kToken));
    }
    return log;
  }

  int64_t log_size(const std::string& key) override { return run({"LLEN", name("l:", key)})->integer; }

  void append(const std::string& key, int64_t expected, std::string_view record, seconds ttl) override {
    script(kAppend, key, expected,
           {std::to_string(ttl.count()), leaf(key), std::to_string(expected), sealed(key, record)});
  }

  void replace_log(const std::string& key, int64_t expected, const std::vector<std::string>& records,
                   seconds ttl) override {
    std::vector<std::string> args = {std::to_string(ttl.count()), leaf(key), std::to_string(expected)};
    for (const std::string& record : records) args.push_back(sealed(key, record));
    script(kReplace, key, expected, args);
  }

  void touch_log(const std::string& key, seconds ttl) override {
    script(kTouchLog, key, 0, {std::to_string(ttl.count()), leaf(key)});
  }

  void erase_log(const std::string& key) override { script(kEraseLog, key, 0, {"0", leaf(key)}); }

  std::vector<LogName> list_logs(const std::string& folder) override {
    const Reply r = run({"EVAL", std::string(kList), "1", name("f:", folder), name("l:", folder) + "/"});
    std::vector<LogName> names;
    for (size_t i = 0; i + 1 < r->elements; i += 2) {
      const std::string key = folder + "/" + std::string(text_of(*r->element[i]));
      double used = 0;
      const std::string_view score = text_of(*r->element[i + 1]);
      std::from_chars(score.data(), score.data() + score.size(), used);
      names.push_back({key, static_cast<int64_t>(used * 1000)});
    }
    return names;
  }

  std::unique_ptr<Store::Lease> lease(const std::string& lease_name, std::chrono::milliseconds time) override;

  void expire() override {}

  Stats stats() override {
    Stats s;
    {
      const std::lock_guard lock(mutex_);
      s = stats_;
    }
    try {
      s.blobs = count_keys("b:");
      s.logs = count_keys("l:");
      const Reply info = run({"INFO", "memory"});
      constexpr std::string_view kUsed = "used_memory:";
      const std::string_view text = text_of(*info);
      if (const size_t at = text.find(kUsed); at != std::string_view::npos) {
        std::from_chars(text.data() + at + kUsed.size(), text.data() + text.size(), s.bytes);
      }
    } catch (const ServeError&) {  // counted as an error, and the figures are zero
    }
    return s;
  }

 private:
  class RedisLease;

  std::string name(std::string_view kind, const std::string& key) const {
    check_store_key(key);
    return fmt::format("{}{}{}", prefix_, kind, key);
  }
  static std::string leaf(const std::string& key) { return key.substr(key.rfind('/') + 1); }
  static std::string folder(const std::string& key) {
    const size_t slash = key.rfind('/');
    return slash == std::string::npos ? "-" : key.substr(0, slash);
  }

  std::string sealed(const std::string& key, std::string_view record) {
    const uint64_t token = token_ + next_++;
    std::string body(reinterpret_cast<const char*>(&token), sizeof token);
    return checked(key, body += record);
  }

  Reply run(const std::vector<std::string>& command) {
    try {
      return pool_.run({command.begin(), command.end()});
    } catch (const Error& e) {
      if (report_) report_(e.what());
      const std::lock_guard lock(mutex_);
      ++stats_.errors;
      stats_.last_error = e.what();
    }
    throw ServeError(503, "store_unavailable", "[store] Redis cannot be reached now").after(1);
  }

  void script(std::string_view body, const std::string& key, int64_t expected, const std::vector<std::string>& args) {
    std::vector<std::string> command = {"EVAL", fmt::format("{}{}", kTouch, body), "2", name("l:", key),
                                        name("f:", folder(key))};
    command.insert(command.end(), args.begin(), args.end());
    const int64_t have = run(command)->integer;
    if (have < 0) return;
    throw ServeError(409, "conversation_changed",
                     fmt::format("[store] the log has {} records, {} were expected", have, expected));
  }

  int64_t count_keys(std::string_view kind) {
    int64_t n = 0;
    std::string cursor = "0";
    do {
      const Reply r = run({"SCAN", cursor, "MATCH", fmt::format("{}{}*", prefix_, kind), "COUNT", "10000"});
      cursor = text_of(*r->element[0]);
      n += static_cast<int64_t>(r->element[1]->elements);
    } while (cursor != "0");
    return n;
  }

  void count_corrupt(const std::string& key) {
    if (report_) report_(fmt::format("[redis] {}: damaged, and not used", key));
    const std::lock_guard lock(mutex_);
    ++stats_.corrupt;
  }

  const std::string prefix_;
  const std::function<void(const std::string&)> report_;
  RedisPool pool_;
  uint64_t token_ = 0;  // the first of this process
  std::atomic<uint64_t> next_{0};
  std::mutex mutex_;
  Stats stats_;
};

class RedisStore::RedisLease : public Store::Lease {
 public:
  RedisLease(RedisStore& store, std::string key, std::string token, std::chrono::milliseconds time)
      : store_(store), key_(std::move(key)), token_(std::move(token)), time_(time) {}
  ~RedisLease() override {
    try {
      store_.run({"EVAL", std::string(kRelease), "1", key_, token_});
    } catch (const ServeError&) {  // it ends by itself
    }
  }
  bool renew() override {
    return store_.run({"EVAL", std::string(kRenew), "1", key_, token_, std::to_string(time_.count())})->integer == 1;
  }

 private:
  RedisStore& store_;
  std::string key_, token_;
  std::chrono::milliseconds time_;
};

std::unique_ptr<Store::Lease> RedisStore::lease(const std::string& lease_name, std::chrono::milliseconds time) {
  const std::string key = name("h:", lease_name);
  const std::string token = fmt::format("{:016x}", token_ + next_++);
  const Reply r = run({"SET", key, token, "NX", "PX", std::to_string(time.count())});
  if (r->type == REDIS_REPLY_NIL) {
    const Reply holder = run({"GET", key});  // ours, if the first answer was lost with its connection
    if (holder->type != REDIS_REPLY_STRING || text_of(*holder) != token) return nullptr;
  }
  return std::make_unique<RedisLease>(*this, key, token, time);
}

}  // namespace

std::unique_ptr<Store> open_redis_store(RedisStoreOptions options) { return std::make_unique<RedisStore>(options); }

}  // namespace krait::serve
