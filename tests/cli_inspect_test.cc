// krait inspect and krait state: what they say about models and states, for people and for programs.
#include "krait/infer/state.h"
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
  // In a state file, and beside the names of files.
  State s = read_state(saved(model(), "s", "one"));
  s.architecture = "mamba\x1B[2J";
  s.specs[0][0].name = "co\x07nv";
  write_state(path("odd\x1B[2J"), s);
  const Finished info = krait({"state", "info", path("odd\x1B[2J")}),
                 diff = krait({"state", "diff", path("odd\x1B[2J"), path("odd\x1B[2J")}),
                 fork = krait({"state", "fork", path("odd\x1B[2J"), path("copy\x1B[2J")}),
                 bench = krait({"bench", odd, "-p", "2", "-n", "0", "-r", "1", "--no-roofline"});
  EXPECT_THAT(info.out, testing::AllOf(HasSubstr("mamba\\x1B[2J"), HasSubstr("0.co\\x07nv"), HasSubstr("odd\\x1B")));
  EXPECT_THAT(diff.out, HasSubstr("0.co\\x07nv"));
  EXPECT_THAT(fork.out, HasSubstr("copy\\x1B[2J"));
  EXPECT_THAT(bench.out, HasSubstr("m\\x1B[2J"));
  EXPECT_THAT(info.out + diff.out + fork.out + bench.out,
              testing::AllOf(testing::Not(HasSubstr("\x1B")), testing::Not(HasSubstr("\x07"))));
}

TEST_F(CliInspect, AListOfProblemsKeepsItsLines) {
  const std::string pair("\1\0\0\0\0\0\0\0a\7\0\0\0\2", 14);  // a bool `a` of 2
  write("short.gguf",
        std::string("GGUF\3\0\0\0", 8) + std::string(8, '\0') + std::string("\2\0\0\0\0\0\0\0", 8) + pair + pair);
  const Finished f = krait({"inspect", path("short.gguf")});
  EXPECT_EQ(f.code, 3);
  EXPECT_THAT(f.err, HasSubstr("3 problems\n  bool a holds 2"));
  EXPECT_THAT(f.err, HasSubstr("\n  key a stands twice"));
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
