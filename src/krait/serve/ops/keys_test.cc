#include "krait/serve/ops/keys.h"

#include <gtest/gtest.h>

#include <fstream>

#include "krait/core/error.h"
#include "krait/serve/serve_error.h"

namespace krait::serve {
namespace {

class FixedClock : public Clock {
 public:
  std::chrono::nanoseconds steady() const override { return now; }
  std::chrono::system_clock::time_point wall() const override { return {}; }
  std::chrono::nanoseconds now{std::chrono::hours(1)};
};

constexpr const char* kSecret = "a-secret-of-some-length";

std::filesystem::path file_with(const std::string& text) {
  const auto path = std::filesystem::path(::testing::TempDir()) / "krait_keys_test";
  std::ofstream(path) << text;
  return path;
}

int status_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const ServeError& e) {
    return e.status();
  }
  return 200;
}

TEST(Keys, Sha256) { EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"); }

TEST(Keys, OpenServerKnowsOneTenant) {
  const FixedClock clock;
  const Keys keys({}, clock);
  EXPECT_EQ(keys.check(nullptr).tenant, "");
}

TEST(Keys, KnownKeysOnly) {
  const FixedClock clock;
  const Keys keys({key_from_secret("one", kSecret), key_from_secret("two", "another-secret-of-length")}, clock);
  const std::string good = std::string("Bearer ") + kSecret, lower = std::string("bearer ") + kSecret;
  EXPECT_EQ(keys.check(&good).name, "one");
  EXPECT_EQ(keys.check(&lower).tenant, sha256_hex(kSecret).substr(0, 16));
  EXPECT_EQ(status_of([&] { keys.check(nullptr); }), 401);
  for (const std::string bad : {"", "Bearer", "Bearer ", "Bearer x", "Basic a-secret-of-some-length",
                                "Bearer a-secret-of-some-lengt", "Bearer a-secret-of-some-length "}) {
    EXPECT_EQ(status_of([&] { keys.check(&bad); }), 401) << bad;
  }
}

TEST(Keys, File) {
  const std::string hash = sha256_hex(kSecret);
  const auto keys =
      read_keys(file_with("# keys\n\nalice " + hash + " requests_per_minute=60 concurrent=2 priority=5 # hers\n"));
  ASSERT_EQ(keys.size(), 1U);
  EXPECT_EQ(keys[0].info.name, "alice");
  EXPECT_EQ(keys[0].info.limits.requests_per_minute, 60);
  EXPECT_EQ(keys[0].info.limits.concurrent, 2);
  EXPECT_EQ(keys[0].info.limits.priority, 5);
  for (const std::string& bad :
       {std::string(), std::string("alice\n"), "alice " + hash.substr(1) + "\n", "alice " + hash + " x=1\n",
        "alice " + hash + " concurrent=\n", "alice " + hash + " concurrent=-1\n", "a " + hash + "\nb " + hash + "\n"}) {
    EXPECT_THROW(read_keys(file_with(bad)), Error) << bad;
  }
  EXPECT_THROW(key_from_secret("k", "short"), Error);
}

TEST(Keys, Limits) {
  FixedClock clock;
  KeyEntry entry = key_from_secret("one", kSecret);
  entry.info.limits = {.requests_per_minute = 2, .concurrent = 1};
  Keys keys({entry}, clock);
  {
    const auto first = keys.enter(entry.info);
    EXPECT_EQ(status_of([&] { keys.enter(entry.info); }), 429);  // at a time
  }
  {
    const auto second = keys.enter(entry.info);
  }
  EXPECT_EQ(status_of([&] { keys.enter(entry.info); }), 429);  // a minute
  clock.now += std::chrono::seconds(30);
  EXPECT_EQ(status_of([&] { keys.enter(entry.info); }), 200);
  EXPECT_EQ(status_of([&] { keys.enter(entry.info); }), 429);
}

}  // namespace
}  // namespace krait::serve
