#include "krait/text/utf8.h"

#include <gtest/gtest.h>

#include "krait/core/rng.h"
#include "krait/text/utf8_stream.h"

namespace krait::text {
namespace {

TEST(Utf8, EveryScalarValueRoundTrips) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string s = to_utf8(c);
    const Utf8Char d = decode_utf8(s);
    ASSERT_TRUE(d.status == Utf8Status::kValid && d.code == c && d.bytes == s.size()) << static_cast<uint32_t>(c);
    ASSERT_EQ(decode_valid_utf8(s.data()).code, c);
    ASSERT_EQ(utf8_length(s[0]), s.size());
  }
}

TEST(Utf8, MaximalSubpartsBecomeOneReplacementEach) {
  const std::string r(kReplacementUtf8);
  EXPECT_EQ(replace_invalid_utf8("a\x80z"), "a" + r + "z");
  EXPECT_EQ(replace_invalid_utf8("\xC0\xAF"), r + r);                  // overlong: C0 never begins a character
  EXPECT_EQ(replace_invalid_utf8("\xE0\x80\xAF"), r + r + r);          // overlong three bytes
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), r + r + r);          // surrogate
  EXPECT_EQ(replace_invalid_utf8("\xF0\x90\x8Dz"), r + "z");           // cut: one for the whole prefix
  EXPECT_EQ(replace_invalid_utf8("\xE2\x82"), r);                      // cut at the end
  EXPECT_EQ(replace_invalid_utf8("\xF4\x90\x80\x80"), r + r + r + r);  // beyond U+10FFFF
  EXPECT_EQ(replace_invalid_utf8("\xE2\x82\xE2\x82\xAC"), r + "€");
  EXPECT_FALSE(is_valid_utf8("\xE2\x82"));
  EXPECT_TRUE(is_valid_utf8("€ and more than eight bytes"));
}

TEST(Utf8Stream, AnyCutGivesTheWholeText) {
  Rng rng(7);
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    for (int i = 0; i < 40; ++i) {
      const uint64_t kind = rng.next_u64() % 4;
      if (kind == 0) bytes.push_back(static_cast<char>(rng.next_u64()));
      if (kind == 1) append_utf8(bytes, static_cast<char32_t>(0xE000 + rng.next_u64() % 0x102000));
      if (kind == 2) bytes += std::string("héé€𝄞").substr(0, rng.next_u64() % 13);
      if (kind == 3) bytes.push_back('x');
    }
    Utf8Stream stream;
    std::string text;
    for (size_t at = 0; at < bytes.size();) {
      const size_t n = 1 + rng.next_u64() % 4;
      const std::string part = stream.push(std::string_view(bytes).substr(at, n));
      ASSERT_TRUE(is_valid_utf8(part));
      text += part;
      at += n;
    }
    ASSERT_EQ(text + stream.finish(), replace_invalid_utf8(bytes)) << "round " << round;
  }
}

TEST(Utf8Stream, HoldsBackOnlyWhatCanStillBecomeACharacter) {
  Utf8Stream s;
  EXPECT_EQ(s.push("a\xE2"), "a");
  EXPECT_EQ(s.push("\x82"), "");
  EXPECT_EQ(s.push("\xAC"), "€");
  EXPECT_EQ(s.push("\xF0\x80"), std::string(kReplacementUtf8) + std::string(kReplacementUtf8));
  EXPECT_EQ(s.finish(), "");
}

TEST(Utf8, EscapeControls) {
  EXPECT_EQ(escape_controls("blk.0.w\xC3\xA9 \xF0\x9F\x90\x8D"), "blk.0.w\xC3\xA9 \xF0\x9F\x90\x8D");
  EXPECT_EQ(escape_controls("\x1B]0;x\x07"), "\\x1B]0;x\\x07");
  EXPECT_EQ(escape_controls(std::string_view("a\0\r\n\t\x7F", 6)), "a\\x00\\x0D\\n\\t\\x7F");
  EXPECT_EQ(escape_controls("\xC2\x9B"
                            "2J \xE2\x80\xAE"),
            "\\u009B2J \\u202E");
  EXPECT_EQ(escape_controls("\xFF\xE2\x80"), "\\xFF\\xE2\\x80");
}

}  // namespace
}  // namespace krait::text
