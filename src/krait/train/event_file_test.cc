#include "krait/train/event_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "krait/core/error.h"

namespace krait::train {
namespace {

namespace fs = std::filesystem;

TEST(EventFile, Crc32cOfTheStandard) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720 B.4
}

TEST(EventFile, FramesHoldWhatWasWritten) {
  const fs::path folder = fs::temp_directory_path() / ("krait_events_" + std::to_string(::getpid()));
  fs::create_directory(folder);
  EventFile f(folder);
  f.scalar("loss/train", 300, 12.5, 1.75f);
  f.text("sample", 300, 12.5, "once");
  f.session_start(301);
  f.flush();
  std::ifstream in(fs::directory_iterator(folder)->path(), std::ios::binary);
  const std::string all{std::istreambuf_iterator<char>(in), {}};
  fs::remove_all(folder);
  std::vector<std::string> events;
  for (size_t at = 0; at < all.size();) {
    uint64_t n = 0;
    ASSERT_LE(at + 12, all.size());
    std::memcpy(&n, all.data() + at, 8);
    ASSERT_LE(at + 16 + n, all.size());
    events.push_back(all.substr(at + 12, n));
    at += 16 + n;
  }
  ASSERT_EQ(events.size(), 4u);
  EXPECT_NE(events[0].find("brain.Event:2"), std::string::npos);
  // key(1, fixed64) 12.5, key(2, varint) 300, key(5) summary { key(1) value { tag, key(2, fixed32) 1.75 } }
  const std::string want = std::string("\x09\0\0\0\0\0\0\x29\x40\x10\xac\x02\x2a\x13\x0a\x11\x0a\x0a", 18) +
                           "loss/train" + std::string("\x15\0\0\xe0\x3f", 5);
  EXPECT_EQ(events[1], want);
  EXPECT_NE(events[2].find("once"), std::string::npos);
  EXPECT_EQ(events[3].substr(9), std::string("\x10\xad\x02\x3a\x02\x08\x01"));  // step 301, session_log { status 1 }
}

TEST(EventFile, SaysWhatCannotBeWritten) { EXPECT_THROW(EventFile("/nowhere/at/all"), Error); }

}  // namespace
}  // namespace krait::train
