#include "krait/serve/cache/redis_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include "krait/serve/cache/redis_connection.h"
#include "krait/serve/cache/store_test.h"
#include "krait/serve/cache/test_redis.h"

namespace krait::serve {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kTtl(100);

void come_back(Store& store) {
  for (int i = 0; i < 200; ++i) {
    if (refusal([&] { store.log_size("up"); }).empty()) return;
    std::this_thread::sleep_for(milliseconds(10));
  }
  ADD_FAILURE() << "still down";
}

TEST(RedisUrl, Forms) {
  const RedisAddress a = parse_redis_url("redis://:p%40ss@host.example:1234/5");
  EXPECT_EQ(a.host, "host.example");
  EXPECT_EQ(a.port, 1234);
  EXPECT_EQ(a.db, 5);
  EXPECT_EQ(a.password, "p@ss");
  EXPECT_EQ(parse_redis_url("redis://localhost").port, 6379);
  EXPECT_EQ(parse_redis_url("redis://[::1]:7/").host, "::1");
  EXPECT_EQ(parse_redis_url("redis://me:x@h").user, "me");
  EXPECT_EQ(parse_redis_url("unix:/run/redis.sock?db=2").db, 2);
  EXPECT_EQ(parse_redis_url("unix://:x@/run/redis.sock").path, "/run/redis.sock");
  for (const char* bad : {"", "host", "http://h", "rediss://h", "redis://", "redis://h:x", "redis://h:70000",
                          "redis://h/x", "redis://h/-1", "redis://secret@h", "redis://:%zz@h", "unix:x"}) {
    try {
      parse_redis_url(bad);
      ADD_FAILURE() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUsage);
      EXPECT_EQ(std::string(e.what()).find("secret"), std::string::npos);
    }
  }
}

TEST(RedisStore, DoesWhatAStoreMust) {
  KRAIT_NEEDS_REDIS();
  const TestRedis redis;
  const auto store = redis.open();
  check_store(*store);
  EXPECT_EQ(store->stats().errors, 0);
}

TEST(RedisStore, Password) {
  KRAIT_NEEDS_REDIS();
  const TestRedis redis("s3cret");
  redis.open()->put("a", "b", kTtl);
  RedisStoreOptions o;
  o.url = redis.url();
  o.url.erase(o.url.find("//:s3cret@"), 10);
  const auto store = open_redis_store(o);
  EXPECT_EQ(refusal([&] { store->get("a"); }), "503 store_unavailable");
  EXPECT_NE(store->stats().last_error.find("NOAUTH"), std::string::npos) << store->stats().last_error;
}

TEST(RedisStore, TimesToLiveAndLeases) {
  KRAIT_NEEDS_REDIS();
  const TestRedis redis;
  const auto one = redis.open(), two = redis.open();
  one->put("blob", "x", seconds(1));
  one->append("f/log", 0, "x", seconds(1));
  const auto lease = one->lease("name", milliseconds(300));
  EXPECT_EQ(two->lease("name", milliseconds(300)), nullptr);
  std::this_thread::sleep_for(milliseconds(200));
  EXPECT_TRUE(lease->renew());
  std::this_thread::sleep_for(milliseconds(200));
  EXPECT_EQ(two->lease("name", milliseconds(300)), nullptr);  // renewed
  std::this_thread::sleep_for(milliseconds(700));             // its holder is dead
  EXPECT_NE(two->lease("name", milliseconds(300)), nullptr);
  EXPECT_FALSE(lease->renew());
  EXPECT_FALSE(two->get("blob").bytes);
  EXPECT_EQ(two->log_size("f/log"), 0);
  EXPECT_TRUE(two->list_logs("f").empty());
}

TEST(RedisStore, CorruptValues) {
  KRAIT_NEEDS_REDIS();
  const TestRedis redis;
  const auto store = redis.open();
  RedisStoreOptions o;
  o.url = redis.url();
  RedisPool pool(o);
  store->put("blob", "payload", kTtl);
  pool.run({"SETRANGE", "krait:b:blob", "10", "X"});
  EXPECT_TRUE(store->get("blob").corrupt);
  EXPECT_FALSE(store->get("blob").corrupt);
  for (int i = 0; i < 3; ++i) store->append("log", i, std::to_string(i), kTtl);
  const Reply r = pool.run({"LINDEX", "krait:l:log", "0"});
  pool.run({"LSET", "krait:l:log", "1", std::string_view(r->str, r->len).substr(1)});
  const Store::Log log = store->read_log("log");
  EXPECT_TRUE(log.corrupt);
  EXPECT_EQ(log.records, Records{"0"});
  store->put("other", "payload", kTtl);  // under another's name
  pool.run({"RENAME", "krait:b:other", "krait:b:blob"});
  EXPECT_TRUE(store->get("blob").corrupt);
  EXPECT_EQ(store->stats().corrupt, 3);
}

TEST(RedisStore, StoppedAndStarted) {
  KRAIT_NEEDS_REDIS();
  TestRedis redis;
  const auto store = redis.open();
  store->append("log", 0, "x", kTtl);
  redis.stop();
  EXPECT_EQ(refusal([&] { store->append("log", 1, "y", kTtl); }), "503 store_unavailable");
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(refusal([&] { store->get("a"); }), "503 store_unavailable");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(1));  // fails fast
  try {
    store->get("a");
  } catch (const ServeError& e) {
    EXPECT_EQ(e.retry_after(), 1);
  }
  redis.start();
  come_back(*store);
  store->append("log", 0, "z", kTtl);
  redis.stop();
  redis.start();
  std::this_thread::sleep_for(milliseconds(50));
  store->append("log", 0, "over a new connection, unnoticed", kTtl);
  redis.pause();
  EXPECT_EQ(refusal([&] { store->append("log", 1, "late", kTtl); }), "503 store_unavailable");
  redis.go_on();
  come_back(*store);
  EXPECT_EQ(store->read_log("log").records.front(), "over a new connection, unnoticed");
}

// It takes connections and says nothing: a call waits for one time limit, not for two.
TEST(RedisStore, Hangs) {
  KRAIT_NEEDS_REDIS();
  TestRedis redis;
  RedisStoreOptions o;
  o.url = redis.url();
  o.timeout = milliseconds(600);
  int reports = 0;
  o.report = [&](const std::string&) { ++reports; };
  const auto store = open_redis_store(o);
  store->append("log", 0, "x", kTtl);
  redis.pause();
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(refusal([&] { store->get("a"); }), "503 store_unavailable");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(1100));
  redis.go_on();
  EXPECT_EQ(reports, 1);
}

// Several writers who retry what was refused, while Redis stops answering now and then: what was acknowledged is there
// once, in order.
TEST(RedisStore, ManyWritersAndABadServer) {
  KRAIT_NEEDS_REDIS();
  TestRedis redis;
  std::atomic<bool> done = false;
  std::vector<std::thread> threads;
  for (int w = 0; w < 3; ++w) {
    threads.emplace_back([&, w] {
      const auto store = redis.open();
      for (int i = 0; i < 60; ++i) {
        const std::string record = std::to_string(w) + ":" + std::to_string(i);
        while (true) {  // as Conversations does: read, look whether it is there, append
          try {
            const Records all = store->read_log("log").records;
            if (std::ranges::find(all, record) == all.end()) store->append("log", std::ssize(all), record, kTtl);
            break;
          } catch (const ServeError&) {
            std::this_thread::sleep_for(milliseconds(1));
          }
        }
      }
    });
  }
  std::thread trouble([&] {
    while (!done) {
      std::this_thread::sleep_for(milliseconds(50));
      redis.pause();
      std::this_thread::sleep_for(milliseconds(100));
      redis.go_on();
    }
  });
  for (std::thread& t : threads) t.join();
  done = true;
  trouble.join();
  const Records all = redis.open()->read_log("log").records;
  ASSERT_EQ(all.size(), 180);
  std::vector<int> next(3);
  for (const std::string& r : all) EXPECT_EQ(r.substr(2), std::to_string(next[static_cast<size_t>(r[0] - '0')]++));
}

}  // namespace
}  // namespace krait::serve
