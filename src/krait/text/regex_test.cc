#include "krait/text/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "krait/core/error.h"

namespace krait::text {
namespace {

std::vector<std::string> matches(const std::string& pattern, std::string_view text) {
  std::vector<Match> found;
  Regex(pattern).find_all(text, found);
  std::vector<std::string> out;
  for (const Match& m : found) out.push_back(std::to_string(m.begin) + "-" + std::to_string(m.end));
  return out;
}
using Spans = std::vector<std::string>;

TEST(Regex, EmptyMatchesDoNotFollowAMatch) {
  EXPECT_EQ(matches("a*", "baac"), (Spans{"0-0", "1-3", "4-4"}));
  EXPECT_EQ(matches(R"((?=(?:\d{3})+(?!\d)))", "12345678"), (Spans{"2-2", "5-5"}));
  EXPECT_EQ(matches("x*", "é"), (Spans{"0-0", "2-2"}));
}

TEST(Regex, ClassesAreUnicodeAndOniguruma) {
  EXPECT_EQ(matches(R"(\s)", "\u180e\u00a0\u0085"), (Spans{"3-5", "5-7"}));  // U+180E is no white space
  EXPECT_EQ(matches(R"([^\s]+)", "a\u2003b"), (Spans{"0-1", "4-5"}));
  EXPECT_EQ(matches(R"(\w+)", "a\u0301_\u203f1-"), (Spans{"0-8"}));  // marks and connectors
  EXPECT_EQ(matches(R"(^b)", "a\nb"), (Spans{"2-3"}));               // ^ at every line
  EXPECT_EQ(matches(R"(\p{N}+|[^\p{L}]+)", "a12"), (Spans{"1-3"}));
}

TEST(Regex, ClassesAreOfUnicode16) {
  EXPECT_EQ(matches(R"(\d+)", "\U000116DE1"), (Spans{"0-5"}));
  EXPECT_EQ(matches(R"([^\p{Lo}]+)", "a\U00031350b"), (Spans{"0-1", "5-6"}));
  EXPECT_EQ(matches(R"(\P{L}|\p{^L})", "\U0002EBF01"), (Spans{"4-5"}));
  EXPECT_EQ(matches(R"(\D)", "\U000116DEx"), (Spans{"4-5"}));
}

TEST(Regex, RefusesWhatPcre2WouldReadDifferently) {
  for (const char* pattern : {R"([\p{L}&&[^a]])", R"([[a]b])", R"(\bx)", R"([\W])", R"([\P{L}a])", R"(a{1,3}+)",
                              R"(\Kx)", "(", "a\\", "[]", R"(\p{)"}) {
    EXPECT_THROW(Regex{pattern}, Error) << pattern;
  }
}

TEST(Regex, RunawayBacktrackingIsAnErrorNotAHang) {
  const Regex regex("(?:a+)+$");
  std::vector<Match> found;
  try {
    regex.find_all(std::string(200, 'a') + "b", found);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadData);
  }
}

}  // namespace
}  // namespace krait::text
