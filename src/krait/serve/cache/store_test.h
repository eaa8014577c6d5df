// For tests: what every Store must do.
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "krait/serve/cache/store.h"
#include "krait/serve/serve_error.h"

namespace krait::serve {

// Status and code of the ServeError that `action` throws: "409 conversation_changed"; "" if nothing was thrown.
template <class Action>
std::string refusal(Action action) {
  try {
    action();
  } catch (const ServeError& e) {
    return std::to_string(e.status()) + " " + e.code();
  }
  return "";
}

using Records = std::vector<std::string>;

inline void check_store(Store& store) {
  using std::chrono::seconds;
  const seconds ttl(100);
  // Blobs.
  EXPECT_FALSE(store.get("t/a").bytes);
  const std::string binary("x\0y\r\n\xff", 6);
  store.put("t/a", binary, ttl);
  store.put("t/empty", "", ttl);
  EXPECT_EQ(store.get("t/a").bytes, binary);
  EXPECT_EQ(store.get("t/empty").bytes, "");
  store.put("t/a", "new", ttl);
  EXPECT_EQ(store.get("t/a").bytes, "new");
  EXPECT_EQ(store.stats().blobs, 2);
  store.erase("t/a");
  store.erase("t/a");
  EXPECT_FALSE(store.get("t/a").bytes);
  EXPECT_FALSE(store.get("t/a").corrupt);

  // Logs.
  EXPECT_EQ(store.log_size("t/c/one"), 0);
  EXPECT_EQ(refusal([&] { store.append("t/c/one", 1, "x", ttl); }), "409 conversation_changed");
  store.append("t/c/one", 0, "first", ttl);
  store.append("t/c/one", 1, binary, ttl);
  store.append("t/c/one", 2, "", ttl);
  EXPECT_EQ(refusal([&] { store.append("t/c/one", 2, "", ttl); }), "409 conversation_changed");  // not the same call
  EXPECT_EQ(refusal([&] { store.append("t/c/one", 4, "x", ttl); }), "409 conversation_changed");
  EXPECT_EQ(store.log_size("t/c/one"), 3);
  EXPECT_EQ(store.read_log("t/c/one").records, (Records{"first", binary, ""}));
  EXPECT_EQ(store.read_log("t/c/one", 2).records, (Records{""}));
  EXPECT_EQ(store.read_log("t/c/one", 1).records, (Records{binary, ""}));
  EXPECT_EQ(store.read_log("t/c/one", 3).records, Records{});
  EXPECT_EQ(store.read_log("t/c/one", 9).records, Records{});
  EXPECT_EQ(refusal([&] { store.replace_log("t/c/one", 2, {"a"}, ttl); }), "409 conversation_changed");
  store.replace_log("t/c/one", 3, {"a", "b"}, ttl);
  EXPECT_EQ(store.read_log("t/c/one").records, (Records{"a", "b"}));
  store.append("t/c/one", 2, "c", seconds(200));  // another time to live
  store.replace_log("t/c/two", 0, {"z"}, ttl);
  store.append("t/c/two", 1, "y", ttl);
  store.append("t/d/three", 0, "of another folder", ttl);
  store.append("t/c/sub/four", 0, "of a folder in it", ttl);
  const auto names = store.list_logs("t/c");
  ASSERT_EQ(names.size(), 2);
  EXPECT_EQ(names[0].key, "t/c/two");
  EXPECT_EQ(names[1].key, "t/c/one");
  store.touch_log("t/c/one", ttl);
  store.touch_log("t/c/none", ttl);
  EXPECT_EQ(store.read_log("t/c/one").records, (Records{"a", "b", "c"}));
  EXPECT_EQ(store.log_size("t/c/none"), 0);
  EXPECT_EQ(store.stats().logs, 4);
  for (const char* key : {"t/c/one", "t/c/two", "t/d/three", "t/c/sub/four", "t/c/none"}) store.erase_log(key);
  EXPECT_EQ(store.log_size("t/c/one"), 0);
  EXPECT_TRUE(store.list_logs("t/c").empty());
  store.append("t/c/one", 0, "again", ttl);
  EXPECT_EQ(store.read_log("t/c/one").records, (Records{"again"}));
  store.erase_log("t/c/one");

  // Leases.
  auto lease = store.lease("t/one", seconds(10));
  ASSERT_NE(lease, nullptr);
  EXPECT_EQ(store.lease("t/one", seconds(10)), nullptr);
  EXPECT_NE(store.lease("t/two", seconds(10)), nullptr);
  EXPECT_TRUE(lease->renew());
  lease.reset();
  EXPECT_NE(store.lease("t/one", seconds(10)), nullptr);

  for (const char* key : {"", "/", "a/", "/a", "a//b", "..", "a/../b", "a b", "a\nb"}) {
    EXPECT_THROW(store.get(key), std::exception) << key;
  }
  store.erase("t/empty");
  EXPECT_EQ(store.stats().logs, 0);
  EXPECT_EQ(store.stats().blobs, 0);
  EXPECT_EQ(store.stats().corrupt, 0);
}

}  // namespace krait::serve
