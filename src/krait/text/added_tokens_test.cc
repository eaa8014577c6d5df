#include "krait/text/added_tokens.h"

#include <gtest/gtest.h>

namespace krait::text {
namespace {

std::string split(const std::vector<AddedToken>& tokens, std::string_view text, bool parse_special = true) {
  AddedTokenMatcher matcher;
  for (const AddedToken& t : tokens) matcher.add(t.content, t);
  std::string out;
  matcher.split(text, parse_special, [&](std::string_view part, int32_t id) {
    out += id >= 0 ? "[" + std::to_string(id) + "]" : "(" + std::string(part) + ")";
  });
  return out;
}

TEST(AddedTokens, LeftmostLongest) {
  const std::vector<AddedToken> tokens = {{"ab", 1}, {"abc", 2}, {"bcd", 3}, {"x", 4}};
  EXPECT_EQ(split(tokens, "abcd"), "[2](d)");
  EXPECT_EQ(split(tokens, "zabxbcd"), "(z)[1][4][3]");
  EXPECT_EQ(split(tokens, "x"), "[4]");
  EXPECT_EQ(split(tokens, ""), "");
  EXPECT_EQ(split(tokens, "aab"), "(a)[1]");
  EXPECT_EQ(split({}, "text"), "(text)");
}

TEST(AddedTokens, StripTakesSpacesButNotThoseOfTheTokenBefore) {
  const AddedToken l{"<l>", 1, false, false, true, false}, r{"<r>", 2, false, false, false, true};
  EXPECT_EQ(split({l, r}, "a \u2003<l> b"), "(a)[1]( b)");
  EXPECT_EQ(split({l, r}, "a <r> \n b"), "(a )[2](b)");
  EXPECT_EQ(split({l, r}, "<r>  <l>"), "[2][1]");
  // A token of white space that the one before has swallowed whole is not there any more, as in the tokenizers package.
  const AddedToken both{"<b>", 3, false, false, true, true}, space{"  \n", 4, false, false, true, true};
  EXPECT_EQ(split({both, space}, "<b>  \n)"), "[3]())");
  EXPECT_EQ(split({both, space}, "a  \n  \n)"), "(a)[4]())");
}

TEST(AddedTokens, SingleWord) {
  const AddedToken w{"the", 1, false, true, false, false};
  EXPECT_EQ(split({w}, "the other \u00e9the the_ the"), "[1]( other \u00e9the the_ )[1]");
}

TEST(AddedTokens, SpecialTokensAsPlainText) {
  const std::vector<AddedToken> tokens = {{"<s>", 1, true}, {"<n>", 2, false}};
  EXPECT_EQ(split(tokens, "<s>a<n>", false), "(<s>a)[2]");
  EXPECT_EQ(split(tokens, "<s>a<n>"), "[1](a)[2]");
}

}  // namespace
}  // namespace krait::text
