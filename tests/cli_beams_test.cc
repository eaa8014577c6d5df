// krait run --beams: what ends a beam, what changes its logits, what is left of an interrupted search; and the limits
// of sequences that run together.
#include "tests/cli_harness.h"

namespace krait::test {
namespace {

using testing::HasSubstr;
using Ids = std::vector<int32_t>;

class CliBeams : public CliTest {
 protected:
  json run(const Args& more) const {
    const Finished f = krait(Args{"run", model(), "--json", "-p", "abc"} + more);
    EXPECT_EQ(f.code, 0) << f.err;
    return f.parsed();
  }
  // Letters only, so that every token is one character.
  static Args letters() {
    Args a = {"--ignore-eos"};
    for (int id = 0; id < 259; ++id) {
      if (id != 256 && (id < 'a' || id > 'h')) a = a + Args{"--logit-bias", std::to_string(id) + "=-inf"};
    }
    return a;
  }
};

TEST_F(CliBeams, LimitsAreUsageErrorsThatStateThem) {
  const Finished beams = krait({"run", model(), "-p", "a", "--beams", "1000000"});
  EXPECT_EQ(beams.code, 2);
  EXPECT_THAT(beams.err, HasSubstr("--beams is 1000000, expected 1 to 256"));
  const Finished parallel = krait({"run", model(), "-p", "a", "-N", "257"});
  EXPECT_EQ(parallel.code, 2);
  EXPECT_THAT(parallel.err, HasSubstr("--parallel is 257, expected 1 to 256"));
  EXPECT_EQ(krait({"run", model(), "-p", "a", "-N", "256", "-n", "1"}).code, 0);
  EXPECT_EQ(krait({"run", model(), "-p", "a", "--beams", "256", "-n", "2"}).code, 0);
}

// One beam is greedy decoding, whatever changes the logits.
TEST_F(CliBeams, BiasAndPenaltiesAct) {
  for (const Args& change : {letters(), Args{"--repeat-penalty", "1.4", "--ignore-eos"},
                             Args{"--frequency-penalty", "0.7", "--repeat-last-n", "5", "--ignore-eos"}}) {
    const json greedy = run(Args{"-n", "12", "--temp", "0"} + change);
    const json beam = run(Args{"-n", "12", "--beams", "1"} + change);
    EXPECT_EQ(greedy["ids"], beam["ids"]) << testing::PrintToString(change);
  }
  const std::string text = run(Args{"-n", "12", "--beams", "4"} + letters())["text"];
  EXPECT_EQ(text.size(), 12);
  EXPECT_EQ(text.find_first_not_of("abcdefgh"), std::string::npos);
}

TEST_F(CliBeams, StopStringsEndABeam) {
  const std::string whole = run(Args{"-n", "10", "--beams", "1"} + letters())["text"];
  const std::string stop = whole.substr(4, 2), state = path("s");
  const json j = run(Args{"-n", "10", "--beams", "1", "--stop", stop, "--save-state", state} + letters());
  EXPECT_EQ(j["text"], whole.substr(0, whole.find(stop)));
  EXPECT_EQ(j["finish_reason"], "stop");
  EXPECT_EQ(j["stop"], stop);
  EXPECT_EQ(krait({"state", "info", state, "--json"}).parsed()["position"], 3 + j["ids"].size());
  // None of many goes beyond it.
  const json best = run(Args{"-n", "10", "--beams", "6", "-N", "6", "--stop", "a", "--stop", "c"} + letters());
  for (const json& c : best["choices"]) {
    EXPECT_EQ(c["text"].get<std::string>().find_first_of("ac"), std::string::npos);
    EXPECT_EQ(c["finish_reason"] == "stop", c.contains("stop"));
  }
}

TEST_F(CliBeams, LogprobsAreThoseOfTheTokens) {
  const json j = run({"-n", "8", "--beams", "3", "--logprobs", "2"});
  ASSERT_EQ(j["logprobs"].size(), j["ids"].size());
  double sum = 0;
  for (size_t i = 0; i < j["ids"].size(); ++i) {
    EXPECT_EQ(j["logprobs"][i]["id"], j["ids"][i]);
    EXPECT_EQ(j["logprobs"][i]["top"].size(), 2);
    sum += j["logprobs"][i]["logprob"].get<double>();
  }
  if (j["finish_reason"] == "length") {
    EXPECT_NEAR(j["logprob"].get<double>(), sum, 1e-6);
  } else {
    EXPECT_LT(j["logprob"].get<double>(), sum) << "the stop id's is in it";
  }
}

TEST_F(CliBeams, CtrlCShowsTheBestSoFarAndKeepsItsState) {
  const std::string state = path("s");
  Child child({"run", model(), "--json", "-p", "abc", "-n", "1000000", "--beams", "3", "--length-penalty", "0",
               "--ignore-eos", "--save-state", state},
              "");
  child.wait_for_handlers();
  usleep(700000);
  child.kill(SIGINT);
  const Finished f = child.wait();
  ASSERT_EQ(f.code, 130) << f.err;
  EXPECT_THAT(f.err, HasSubstr("interrupted; this is the best that the search had so far"));
  const json j = f.parsed();
  EXPECT_EQ(j["finish_reason"], "interrupted");
  const Ids ids = j["ids"];
  ASSERT_FALSE(ids.empty());
  EXPECT_EQ(krait({"state", "info", state, "--json"}).parsed()["position"], 3 + ids.size());
}

}  // namespace
}  // namespace krait::test
