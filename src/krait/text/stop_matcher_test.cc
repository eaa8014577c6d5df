#include "krait/text/stop_matcher.h"

#include <gtest/gtest.h>

#include "krait/core/error.h"

namespace krait::text {
namespace {

struct Outcome {
  std::string text, stop;
  bool operator==(const Outcome&) const = default;
};

Outcome run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher m(stops);
  Outcome o;
  for (const std::string& p : pieces) o.text += m.push(p);
  o.text += m.finish();
  if (m.found() != nullptr) o.stop = *m.found();
  return o;
}

// The same for every way to cut the text into two or three pieces, and byte by byte.
Outcome run_cut(const std::vector<std::string>& stops, const std::string& text) {
  const Outcome want = run(stops, {text});
  for (size_t i = 0; i <= text.size(); ++i) {
    for (size_t j = i; j <= text.size(); ++j) {
      EXPECT_EQ(run(stops, {text.substr(0, i), text.substr(i, j - i), text.substr(j)}), want) << text << i << ' ' << j;
    }
  }
  std::vector<std::string> bytes;
  for (const char c : text) bytes.emplace_back(1, c);
  EXPECT_EQ(run(stops, bytes), want) << text;
  return want;
}

TEST(StopMatcher, FindsStopsAcrossPieces) {
  EXPECT_EQ(run_cut({"END"}, "abcENDdef"), (Outcome{"abc", "END"}));
  EXPECT_EQ(run_cut({"END"}, "ENENEND"), (Outcome{"ENEN", "END"}));
  EXPECT_EQ(run_cut({"\n\n"}, "one\ntwo\n\nthree"), (Outcome{"one\ntwo", "\n\n"}));
  EXPECT_EQ(run_cut({"aab"}, "aaaab"), (Outcome{"aa", "aab"}));
}

TEST(StopMatcher, LetsGoOfWhatWasNoStop) {
  EXPECT_EQ(run_cut({"END"}, "abcEN"), (Outcome{"abcEN", ""}));
  EXPECT_EQ(run_cut({"abcabd"}, "abcabcabx"), (Outcome{"abcabcabx", ""}));
  EXPECT_EQ(run_cut({}, "text"), (Outcome{"text", ""}));
}

TEST(StopMatcher, TheFirstToEndCountsAndOfThoseTheLongest) {
  EXPECT_EQ(run_cut({"abcd", "bc"}, "xabcdx"), (Outcome{"xa", "bc"}));
  EXPECT_EQ(run_cut({"c", "bc", "abc"}, "xabcx"), (Outcome{"x", "abc"}));
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher m({"User:"});
  EXPECT_EQ(m.push("Hello U"), "Hello ");
  EXPECT_EQ(m.push("se"), "");
  EXPECT_EQ(m.push("ful"), "Useful");
  EXPECT_EQ(m.push("User"), "");
  EXPECT_EQ(m.push(":"), "");
  ASSERT_NE(m.found(), nullptr);
  EXPECT_EQ(m.push("more"), "");
  EXPECT_EQ(m.finish(), "");
}

TEST(StopMatcher, RefusesStopsThatCanNeverBeFound) {
  EXPECT_THROW(StopMatcher({""}), Error);
  EXPECT_THROW(StopMatcher({"\xff"}), Error);
}

}  // namespace
}  // namespace krait::text
