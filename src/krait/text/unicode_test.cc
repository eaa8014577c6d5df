#include "krait/text/unicode.h"

#include <gtest/gtest.h>

#include "krait/text/growth.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

std::string nfc(std::string_view s) { return normalize(s, NormalForm::kNfc); }

TEST(Unicode, ClassesOfAsciiEqualTheTables) {
  EXPECT_EQ(char_class(U'a'), kLower | kWord);
  EXPECT_EQ(char_class(U'_'), kPunctuation | kWord);
  EXPECT_EQ(char_class(U'\v'), kSpace);
  EXPECT_EQ(char_class(U'\x1c'), 0);  // not White_Space
  EXPECT_EQ(char_class(U'$'), kSymbol);
}

TEST(Unicode, ClassesBeyondAscii) {
  EXPECT_EQ(char_class(0x85), kSpace);
  EXPECT_EQ(char_class(0xA0), kSpace);
  EXPECT_EQ(char_class(0x180E), 0);
  EXPECT_EQ(char_class(0x301), kMark | kWord);
  EXPECT_EQ(char_class(0x1C5), kUpper | kWord);  // title case
  EXPECT_EQ(char_class(0x2167), kOtherNumber | kWord);
  EXPECT_EQ(char_class(0xB2), kOtherNumber);
  EXPECT_EQ(char_class(0x24B6), kSymbol | kWord);        // circled A is Alphabetic
  EXPECT_EQ(char_class(0x1C89), kUpper | kWord);         // Unicode 16
  EXPECT_EQ(char_class(0x2EBF0), kOtherLetter | kWord);  // Unicode 15.1
  EXPECT_EQ(char_class(0x378), 0);                       // unassigned
}

TEST(Unicode, NormalForms) {
  EXPECT_EQ(nfc("cafe\u0301"), "caf\u00e9");
  EXPECT_EQ(nfc("a\u0323\u0302"), "\u1ead");
  EXPECT_EQ(nfc("a\u0302\u0323"), "\u1ead");  // marks are put in order first
  EXPECT_EQ(nfc("\u1112\u1161\u11ab"), "\ud55c");
  EXPECT_EQ(nfc("\uac00\u11a7"), "\uac00\u11a7");  // U+11A7 is a vowel, not the first final consonant
  EXPECT_EQ(nfc("\u212b"), "\u00c5");
  EXPECT_EQ(nfc("\u0344"), "\u0308\u0301");
  EXPECT_EQ(nfc("q\u0344"), "q\u0308\u0301");
  EXPECT_EQ(normalize("\u00e9\ud55c", NormalForm::kNfd), "e\u0301\u1112\u1161\u11ab");
  EXPECT_EQ(normalize("\ufb01\u2126", NormalForm::kNfkc), "fi\u03a9");
  EXPECT_EQ(normalize("\u1e9b\u0323", NormalForm::kNfkd), "s\u0323\u0307");
  EXPECT_EQ(normalize("e\u0301", NormalForm::kNfkc), "\u00e9");
}

TEST(Unicode, CharactersNewerThanTheTrainedNormalizerStay) {
  EXPECT_EQ(nfc("\U00011935\U00011930"), "\U00011935\U00011930");  // Unicode 13 composes them
  EXPECT_EQ(normalize("\u32ff", NormalForm::kNfkc), "\u32ff");     // Unicode 12.1
}

TEST(Unicode, FastTestOfNfcIsSafe) {
  for (const char* s : {"plain", "caf\u00e9 \u2019\u4e2d", ""}) EXPECT_TRUE(is_surely_nfc(s)) << s;
  for (const char* s : {"e\u0301", "\u212b", "\u1100\u1161"}) EXPECT_FALSE(is_surely_nfc(s)) << s;
  for (char32_t c = 0x80; c < 0x30000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string s = to_utf8(c);
    if (!is_surely_nfc(s)) continue;
    ASSERT_EQ(nfc(s), s) << static_cast<uint32_t>(c);
  }
}

TEST(Unicode, AMillionMarksAreNotQuadratic) {
  const auto work = [](size_t n) {
    std::string s = "a";
    for (size_t i = 0; i < n; ++i) s += i % 2 == 0 ? "\u0301" : "\u0323";
    EXPECT_TRUE(nfc(s).starts_with("\u1ea1\u0323"));  // all dots below come first; the first joins the a
  };
  EXPECT_LT(growth_of_16_times(work, 1 << 16), 64);
}

TEST(Unicode, LowerCase) { EXPECT_EQ(to_lower("ÀB\u0130Σ"), "àbi\u0307σ"); }

}  // namespace
}  // namespace krait::text
