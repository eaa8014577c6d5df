// krait inspect and krait state: what they say about models and states, for people and for programs.
#include "tests/cli_harness.h"

namespace krait::test {
namespace {

using testing::HasSubstr;

class CliInspect : public CliTest {
 protected:
  std::string saved(const std::string& m, const std::string& name, const std::string& prompt) const {
    EXPECT_EQ(
        krait({"run", m, "-p", prompt, "-n", "2", "--temp", "0", "--ignore-eos", "--save-state", path(name)}).code, 0);
    return path(name);
  }
};

TEST_F(CliInspect, ShapesAreArraysAndWholeNumbersIntegers) {
  const json j = krait({"inspect", model("mamba3_siso"), "--json"}).parsed();
  for (const json& t : j["tensors"]) {
    ASSERT_TRUE(t["shape"].is_array()) << t;
    for (const json& d : t["shape"]) EXPECT_TRUE(d.is_number_integer()) << t;
  }
  EXPECT_TRUE(j["state_of_a_layer"][0]["shape"].is_array());
  EXPECT_TRUE(j["mixer_config"]["d_state"].is_number_integer());
  EXPECT_TRUE(j["mixer_config"]["A_floor"].is_number_float());
  EXPECT_EQ(krait({"inspect", model("mamba2"), "--json"}).parsed()["mixer_config"]["dt_limit_max"], "inf");
  EXPECT_THAT(krait({"inspect", model("mamba3_siso"), "--tensors"}).out, HasSubstr("backbone.norm_f.weight"));
}

TEST_F(CliInspect, APathThatIsNotUtf8) {
  const std::string odd = path("m\xFF");
  fs::copy(model(), odd);
  const Finished f = krait({"inspect", odd, "--json"});
  EXPECT_EQ(f.code, 0) << f.err;
  EXPECT_THAT(f.parsed()["path"].get<std::string>(), HasSubstr("\xEF\xBF\xBD"));
}

TEST_F(CliInspect, WhatActsOnATerminalIsShownNotSent) {
  const std::string odd = path("m\x1B[2J");
  fs::copy(model(), odd);
  const Finished shown = krait({"inspect", odd}), absent = krait({"inspect", path("absent\x1B]0;x\x07")});
  EXPECT_THAT(shown.out, HasSubstr("m\\x1B[2J"));
  EXPECT_THAT(absent.err, HasSubstr("absent\\x1B]0;x\\x07"));
  EXPECT_THAT(shown.out + absent.err, testing::Not(HasSubstr("\x1B")));
}

TEST_F(CliInspect, OptionsWithoutEffectAreNotThere) {
  const std::string m = model();
  for (const Args& args : std::vector<Args>{{"inspect", m, "-t", "2"},
                                            {"inspect", m, "--tokenizer", m},
                                            {"verify", m, "--tokenizer", m},
                                            {"logits", m, "--tokenizer", m, "--ids", "a", "--out", "b"}}) {
    EXPECT_EQ(krait(args).code, 2) << testing::PrintToString(args);
  }
  // What has no use for a tokenizer does not read one either.
  fs::copy(m, path("copy"));
  write("copy/tokenizer.json", "{");
  EXPECT_EQ(krait({"verify", path("copy"), "--quick", "--weights", "f32", "--length", "9"}).code, 0);
  EXPECT_EQ(krait({"run", path("copy"), "-p", "a", "-n", "1"}).code, 3);
}

TEST_F(CliInspect, StatesAreComparedAndTheirPhasesAroundTheCircle) {
  const std::string m = model("mamba3_siso"), a = saved(m, "a", "one"), b = saved(m, "b", "two");
  const Finished equal = krait({"state", "diff", a, a});
  EXPECT_EQ(equal.code, 0);
  EXPECT_THAT(equal.out, HasSubstr("\nequal\n"));
  const Finished different = krait({"state", "diff", a, b});
  EXPECT_EQ(different.code, 1);
  EXPECT_THAT(different.out, HasSubstr(" turns, RMS "));
  const json j = krait({"state", "diff", a, b, "--json"}).parsed();
  const json& phase = j["tensors"][0];
  EXPECT_EQ(phase["name"], "0.phase");
  EXPECT_TRUE(phase["shape"].is_array());
  EXPECT_LE(phase["max_abs_turns"].get<double>(), 0.5);
  EXPECT_LE(phase["rms_turns"].get<double>(), 0.5);
  EXPECT_TRUE(j["tensors"][1].contains("relative_rms"));
  EXPECT_TRUE(krait({"state", "info", a, "--json"}).parsed()["tensors"][0]["shape"].is_array());
}

TEST_F(CliInspect, AForkOverwritesNothingUnasked) {
  const std::string a = saved(model(), "a", "one"), copy = path("copy");
  EXPECT_EQ(krait({"state", "fork", a, copy}).code, 0);
  const std::string before = read_all(copy);
  const Finished again = krait({"state", "fork", a, copy, "--seed", "5"});
  EXPECT_EQ(again.code, 2);
  EXPECT_THAT(again.err, HasSubstr("--force"));
  EXPECT_EQ(read_all(copy), before);
  EXPECT_EQ(krait({"state", "fork", a, copy, "--seed", "5", "--force"}).code, 0);
  EXPECT_NE(read_all(copy), before);
}

}  // namespace
}  // namespace krait::test
