#include "krait/io/zip.h"

#include <gmock/gmock.h>

#include "krait/io/test_folder.h"
#include "krait/io/test_zip.h"

namespace krait::io {
namespace {

using ::testing::HasSubstr;

std::span<const std::byte> bytes(const std::string& s) { return std::as_bytes(std::span(s)); }
std::vector<ZipEntry> list(const std::string& s) { return list_zip(bytes(s), "test.zip"); }
std::string content(const std::string& s, const ZipEntry& e) {
  const std::vector<std::byte> b = extract_zip(bytes(s), e, "test.zip");
  return {reinterpret_cast<const char*>(b.data()), b.size()};
}
std::string why(const std::string& s) {
  return bad_data([&] { list(s); });
}

TestZip two_members() {
  TestZip z;
  z.add("a/stored", "hello");
  z.add("deflated", std::string(10000, 'x') + "end", true);
  return z;
}

TEST(Zip, StoredAndDeflated) {
  for (const bool zip64 : {false, true}) {
    for (const char* comment : {"", "a comment PK\x05\x06 with a signature and twenty bytes after it"}) {
      SCOPED_TRACE(testing::Message() << zip64 << comment);
      const std::string s = two_members().str(zip64, comment);
      const auto entries = list(s);
      ASSERT_EQ(entries.size(), 2u);
      EXPECT_EQ(entries[0].name, "a/stored");
      EXPECT_EQ(entries[0].method, ZipEntry::kStored);
      EXPECT_EQ(content(s, entries[0]), "hello");
      EXPECT_EQ(stored_bytes(bytes(s), entries[0], "").size(), 5u);
      EXPECT_EQ(s.substr(entries[0].offset, 5), "hello");
      EXPECT_EQ(content(s, entries[1]), std::string(10000, 'x') + "end");
      EXPECT_THAT(bad_data([&] { stored_bytes(bytes(s), entries[1], "test.zip"); }), HasSubstr("compressed"));
    }
  }
}

TEST(Zip, EmptyArchiveEmptyMemberAndFolders) {
  EXPECT_TRUE(list(TestZip().str()).empty());
  TestZip z;
  z.add("folder/", "");
  z.add("empty", "");
  z.add("empty-deflated", "", true);
  const std::string s = z.str();
  const auto entries = list(s);
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(content(s, entries[0]), "");
  EXPECT_EQ(content(s, entries[1]), "");
  EXPECT_TRUE(looks_like_zip(bytes(s)));
  EXPECT_FALSE(looks_like_zip(bytes("PK")));
}

TEST(Zip, EveryTruncationIsRefused) {
  for (const bool zip64 : {false, true}) {
    const std::string s = two_members().str(zip64);
    for (size_t n = 0; n < s.size(); ++n) EXPECT_THROW(list(s.substr(0, n)), Error) << n;
  }
}

// No single changed byte may crash, and content is either right or refused.
TEST(Zip, TrapC15_EveryDamagedByteIsHarmless) {
  for (const bool zip64 : {false, true}) {
    const std::string good = two_members().str(zip64);
    for (size_t i = 0; i < good.size(); ++i) {
      for (const int flip : {0x01, 0x80, 0xFF}) {
        std::string s = good;
        s[i] = static_cast<char>(s[i] ^ flip);
        try {
          for (const ZipEntry& e : list(s)) {
            const std::string c = content(s, e);
            EXPECT_TRUE(c == "hello" || c.size() == 10003) << i;
          }
        } catch (const Error& e) {
          EXPECT_EQ(e.code(), ErrorCode::kBadData) << e.what();
        }
      }
    }
  }
}

TEST(Zip, DuplicateNamesAndAllProblemsAtOnce) {
  TestZip z;
  z.add("a", "1");
  z.add("a", "2");
  z.add("b", "3").flags = 1;
  z.add("c", "4").method = 12;
  z.add("d", "5").size = 6;
  const std::string m = why(z.str());
  EXPECT_THAT(m, HasSubstr("4 problems"));
  EXPECT_THAT(m, HasSubstr("\"a\": its name occurs twice"));
  EXPECT_THAT(m, HasSubstr("\"b\": it is encrypted"));
  EXPECT_THAT(m, HasSubstr("\"c\": compression method 12"));
  EXPECT_THAT(m, HasSubstr("\"d\": it is stored, but 6 bytes are said to come from 1"));
}

TEST(Zip, LocalHeaderMustAgree) {
  TestZip z;
  z.add("name", "hello");
  const std::string good = z.str();
  const size_t central = good.find("PK\x01\x02");
  for (const size_t at : {central + 16, central + 24, central + 46, size_t{8}, size_t{14}, size_t{18}, size_t{30}}) {
    std::string s = good;
    s[at] ^= 1;
    EXPECT_THAT(why(s), HasSubstr("test.zip: member")) << at;
  }
  std::string streamed = good;  // written to a pipe: sizes follow the data and the local header has none
  streamed[6] = 8;
  for (size_t i = 14; i < 26; ++i) streamed[i] = 0;
  EXPECT_EQ(content(streamed, list(streamed).at(0)), "hello");
}

TEST(Zip, OverlappingMembersAreRefused) {
  TestZip z;
  z.add("a", "11111");
  z.add("b", "22222");
  std::string s = z.str();
  // Both directory entries point to the same member.
  const size_t second = s.rfind("PK\x01\x02");
  s[second + 46] = 'a';
  for (size_t i = 0; i < 4; ++i) s[second + 42 + i] = 0;
  const size_t first = s.find("PK\x01\x02");
  s.replace(second + 16, 4, s.substr(first + 16, 4));
  EXPECT_THAT(why(s), HasSubstr("occurs twice"));
  // Directory inside a member: the data of "a" is said to reach over "b".
  TestZip q;
  q.add("a", "11111");
  q.add("b", "22222");
  std::string t = q.str();
  const size_t central = t.find("PK\x01\x02"), header_b = t.rfind("PK\x03\x04");
  const char longer = static_cast<char>(header_b - 31 + 5);
  for (const size_t at : {size_t{18}, size_t{22}, central + 20, central + 24}) t[at] = longer;
  EXPECT_THAT(why(t), HasSubstr("members \"a\" and \"b\" overlap"));
}

TEST(Zip, BombsAreRefused) {
  TestZip impossible;
  impossible.add("a", std::string(1000, 'x'), true).size = 0xFFFFFFF0;
  EXPECT_THAT(why(impossible.str()), HasSubstr("cannot come from"));
  // As good as deflate gets, but more than an archive of this size may give.
  TestZip large;
  const std::string packed = TestZip::deflate_raw(std::string(1 << 20, '\0'));
  for (int i = 0; i < 300; ++i) {
    TestZip::Member& m = large.add(std::to_string(i), "");
    m.data = packed;
    m.method = 8;
    m.size = 1 << 20;
  }
  EXPECT_THAT(why(large.str()), HasSubstr("a zip bomb"));
}

TEST(Zip, WrongLengthOrChecksumOfContent) {
  for (const int change : {-1, 1}) {
    TestZip z;
    z.add("a", std::string(100, 'x') + "yz", true).size += static_cast<uint32_t>(change);
    const std::string s = z.str();
    EXPECT_THAT(bad_data([&] { content(s, list(s).at(0)); }), HasSubstr("its data ends after"));
  }
  TestZip z;
  z.add("a", "hello").crc ^= 1;
  const std::string s = z.str();
  EXPECT_THAT(bad_data([&] { content(s, list(s).at(0)); }), HasSubstr("its CRC is"));
  TestZip t;
  t.add("a", "hello", true).data += "tail";
  const std::string tail = t.str();
  bad_data([&] { content(tail, list(tail).at(0)); });
}

TEST(Zip, AbsurdCounts) {
  std::string s = TestZip().str();
  s[s.size() - 12] = s[s.size() - 11] = s[s.size() - 14] = s[s.size() - 13] = 0x7F;
  EXPECT_THAT(why(s), HasSubstr("members are claimed"));
}

}  // namespace
}  // namespace krait::io
