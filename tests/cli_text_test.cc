// Text that is not UTF-8, texts that cannot be measured, states that cannot be saved: told at once, with the place.
#include "tests/cli_harness.h"

namespace krait::test {
namespace {

using testing::HasSubstr;

class CliText : public CliTest {};

TEST_F(CliText, WhatIsNotUtf8IsRefusedWithItsPlaceOrTakenIfAsked) {
  const std::string m = model(), bad = "caf\xE9 au lait", half = "abc\xE2\x82";
  write("bad", bad);
  const std::string file = path("bad");
  const std::vector<std::pair<Args, std::string>> cases = {
      {{"run", m, "-n", "1", "-p", bad}, "the prompt is not UTF-8: byte 0xE9 at offset 3"},
      {{"run", m, "-n", "1", "-f", file}, file + " is not UTF-8: byte 0xE9 at offset 3"},
      {{"run", m, "-n", "1", "-p", half}, "byte 0xE2 at offset 3"},
      {{"tokenize", m, "-p", bad}, "the text is not UTF-8: byte 0xE9 at offset 3"},
      {{"tokenize", m, "-f", file}, file + " is not UTF-8"},
      {{"perplexity", m, file}, file + " is not UTF-8"}};
  for (const auto& [args, message] : cases) {
    const Finished f = krait(args);
    EXPECT_EQ(f.code, 3) << testing::PrintToString(args);
    EXPECT_THAT(f.err, HasSubstr(message));
    EXPECT_THAT(f.err, HasSubstr("--lossy-utf8"));
    EXPECT_EQ(f.out, "");
    EXPECT_EQ(krait(args + Args{"--lossy-utf8"}).code, 0) << testing::PrintToString(args);
  }
  EXPECT_EQ(krait({"tokenize", m}, bad).code, 3);
  EXPECT_EQ(krait({"run", m, "-n", "1"}, bad).code, 3);
  // U+FFFD stands for what is not.
  EXPECT_EQ(krait({"tokenize", m, "--json", "--lossy-utf8", "-p", bad}).out,
            krait({"tokenize", m, "--json", "-p", "caf\xEF\xBF\xBD au lait"}).out);
  EXPECT_EQ(krait({"tokenize", m, "--decode", "--lossy-utf8"}, "65").code, 2);
}

TEST_F(CliText, AMessageThatIsNotUtf8IsNotSaidInAChat) {
  const Finished f = krait({"run", model(), "-i", "-n", "2"}, "a\xFF\n");
  EXPECT_EQ(f.code, 0);
  EXPECT_THAT(f.err, HasSubstr("the message is not UTF-8: byte 0xFF at offset 1"));
  EXPECT_EQ(krait({"run", model(), "-i", "-n", "2", "--lossy-utf8"}, "a\xFF\n").err, "");
}

TEST_F(CliText, NoResultIsLostToATextThatCannotBeMeasured) {
  write("a.txt", std::string(20000, 'a'));
  write("empty.txt", "");
  const Finished f = krait({"perplexity", model(), path("a.txt"), path("empty.txt")});
  EXPECT_EQ(f.code, 3);
  EXPECT_THAT(f.err, HasSubstr("empty.txt has 0 tokens"));
}

TEST_F(CliText, AStateThatCannotBeSavedIsToldBeforeTheTextIsWritten) {
  for (const std::string& place : {std::string("/dev/full"), path("no/folder"), folder_.string()}) {
    const Finished f = krait({"run", model(), "-p", "abc", "-n", "5", "--save-state", place});
    EXPECT_EQ(f.code, 1) << place;
    EXPECT_THAT(f.err, HasSubstr(place));
    EXPECT_EQ(f.out, "") << place;
  }
  // The place is tried without touching what stands there.
  write("s", "old");
  EXPECT_EQ(krait({"run", path("no model"), "-p", "a", "--save-state", path("s")}).code, 1);
  EXPECT_EQ(read_all(path("s")), "old");
}

}  // namespace
}  // namespace krait::test
