#include "krait/text/split_patterns.h"

#include <gtest/gtest.h>

#include "krait/core/rng.h"
#include "krait/text/regex.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

using Pieces = std::vector<std::string>;

Pieces split(std::string_view regex, std::string_view text) {
  const PieceEnd end = known_pattern(regex);
  Pieces out;
  for (size_t i = 0; i < text.size();) {
    const size_t e = end(text, i);
    out.emplace_back(text.substr(i, e - i));
    i = e;
  }
  return out;
}

TEST(SplitPatterns, Gpt2) {
  EXPECT_EQ(split(patterns::kGpt2, "I don't  know,\n\n 42x!"),
            (Pieces{"I", " don", "'t", " ", " know", ",", "\n\n", " 42", "x", "!"}));
  EXPECT_EQ(split(patterns::kGpt2, "  "), (Pieces{"  "}));
  EXPECT_EQ(split(patterns::kGpt2, "'S 'll"), (Pieces{"'", "S", " '", "ll"}));
  EXPECT_EQ(split(patterns::kGpt2, "\tx"), (Pieces{"\t", "x"}));
}

TEST(SplitPatterns, Llama3AndQwen2) {
  EXPECT_EQ(split(patterns::kLlama3, "It'S 12345 (a) \n\n  b"),
            (Pieces{"It", "'S", " ", "123", "45", " (", "a", ")", " \n\n", " ", " b"}));
  EXPECT_EQ(split(patterns::kQwen2, "x12"), (Pieces{"x", "1", "2"}));
  EXPECT_EQ(split(patterns::kLlama3, "!!\n\nx"), (Pieces{"!!\n\n", "x"}));
}

TEST(SplitPatterns, TekkenSeparatesCases) {
  EXPECT_EQ(split(patterns::kTekken, "camelCase HTTPServer 1/2"),
            (Pieces{"camel", "Case", " HTTPServer", " ", "1", "/", "2"}));
  EXPECT_EQ(split(patterns::kTekken, "ABC"), (Pieces{"ABC"}));
}

char32_t random_char(Rng& rng) {
  static constexpr std::u32string_view kOften = U"aZz09 '’!\n\r\t.sSſtTdDmMrReEvVlLéÉǅʰا़́中½Ⅷ²\u00a0\u2003\u0085_/$";
  if (rng.below(8) != 0) return kOften[rng.below(kOften.size())];
  return static_cast<char32_t>(0x21 + rng.below(0x700));  // old enough for any version of Unicode
}

// The hand-written splitters against the expressions themselves.
TEST(SplitPatterns, EqualTheirExpressions) {
  const std::string_view folded =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  for (const std::string_view pattern :
       {patterns::kGpt2, patterns::kLlama3, patterns::kQwen2, patterns::kTekken, folded}) {
    ASSERT_NE(known_pattern(pattern), nullptr) << pattern;
    const Regex regex{std::string(pattern)};
    Rng rng(11);
    for (int round = 0; round < 4000; ++round) {
      std::string text;
      for (uint64_t n = rng.below(24); n > 0; --n) {
        const char32_t c = random_char(rng);
        append_utf8(text, c);
      }
      std::vector<Match> matches;
      regex.find_all(text, matches);
      Pieces want;
      for (const Match& m : matches) want.push_back(text.substr(m.begin, m.end - m.begin));
      ASSERT_EQ(split(pattern, text), want) << pattern << " on '" << text << "', round " << round;
    }
  }
}

TEST(SplitPatterns, UnknownExpressionIsNotGuessed) { EXPECT_EQ(known_pattern(R"(\p{L}+)"), nullptr); }

}  // namespace
}  // namespace krait::text
