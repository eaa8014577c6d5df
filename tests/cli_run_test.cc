// krait run: what it writes, when it ends, what it keeps.
#include "tests/cli_harness.h"

namespace krait::test {
namespace {

using testing::HasSubstr;

using Ids = std::vector<int32_t>;

class CliRun : public CliTest {
 protected:
  json run(const Args& more) const {
    const Finished f = krait(Args{"run", model(), "--json"} + more);
    EXPECT_EQ(f.code, 0) << f.err;
    return f.parsed();
  }
};

TEST_F(CliRun, OptionsThatCannotTakeEffectAreErrors) {
  const std::string m = model();
  const std::vector<Args> wrong = {{"-p", "a", "-f", "b"},
                                   {"-p", "a", "-m", m},
                                   {"-p", "a", "--temp", "0", "--top-k", "5"},
                                   {"-p", "a", "--temp", "0", "--top-p", "0.5"},
                                   {"-p", "a", "--temp", "0", "--min-p", "0.5"},
                                   {"-p", "a", "--temp", "0", "--seed", "5"},
                                   {"-p", "a", "--temp", "0", "-N", "2"},
                                   {"-p", "a", "--beams", "2", "--temp", "0.5"},
                                   {"-p", "a", "--beams", "2", "--seed", "1"},
                                   {"-p", "a", "--beams", "513"},
                                   {"-p", "a", "--beams", "2", "-n", "-1"},
                                   {"-p", "a", "-N", "513"},
                                   {"-p", "a", "--beams", "2", "-N", "3"},
                                   {"-p", "a", "--beams", "0"},
                                   {"-p", "a", "--length-penalty", "2"},
                                   {"-p", "a", "-N", "2", "--save-state", path("s")},
                                   {"-p", "a", "-N", "0"},
                                   {"-p", "a", "--logprobs", "2"},
                                   {"-p", "a", "--repeat-last-n", "5"},
                                   {"-p", "a", "--system", "x"},
                                   {"-p", "a", "--chat-template", "auto"},
                                   {"-p", "a", "--chat-template", "no such one"},
                                   {"-p", "a", "-n", "-2"},
                                   {"-p", "a", "-n", "0"},
                                   {"-p", "a", "--temp", "-1"},
                                   {"-p", "a", "--top-p", "0"},
                                   {"-p", "a", "--seed", "-2"},
                                   {"-p", "a", "--json", "--no-display-prompt"},
                                   {"-p", "a", "--stop", ""},
                                   {"-p", "a", "--stop-id", "259"},
                                   {"-p", "a", "--logit-bias", "65"},
                                   {"-p", "a", "--logit-bias", "259=1"},
                                   {"-p", "a", "--logit-bias", "5=1", "--logit-bias", "5=2"},
                                   {"-p", "a", "--ignore-eos", "--stop-id", "256"},
                                   {"-p", "a", "-c", "512"},
                                   {"-i", "--json"},
                                   {"-i", "-f", "x"},
                                   {"-p", ""}};
  for (const Args& args : wrong) {
    const Finished f = krait(Args{"run", m} + args);
    EXPECT_EQ(f.code, 2) << testing::PrintToString(args) << f.err;
    EXPECT_THAT(f.err, HasSubstr("krait: [")) << testing::PrintToString(args);
    EXPECT_EQ(f.out, "") << testing::PrintToString(args);
  }
  EXPECT_EQ(krait({"run", m}).code, 2) << "empty standard input";
  EXPECT_EQ(krait({"run", m, "-f", path("absent")}).code, 1);
  EXPECT_EQ(krait({"run", m, "--load-state", path("absent")}).code, 1);
}

TEST_F(CliRun, APromptIsAPromptHoweverItComes) {
  const std::string m = model();
  const Args rest = {"-n", "8", "--seed", "3"};
  const std::string want = krait(Args{"run", m, "-p", "Once upon"} + rest).out;
  ASSERT_TRUE(want.starts_with("Once upon"));
  write("prompt", "Once upon\n");
  EXPECT_EQ(krait(Args{"run", m, "-f", path("prompt")} + rest).out, want);
  EXPECT_EQ(krait(Args{"run", m} + rest, "Once upon\n").out, want);
  EXPECT_EQ(krait(Args{"run", "-m", m, "-f", "-"} + rest, "Once upon").out, want);
  EXPECT_EQ("Once upon" + krait(Args{"run", m, "-p", "Once upon", "--no-display-prompt"} + rest).out, want);
  EXPECT_EQ("Once upon" + krait(Args{"run", m, "-p", "Once upon", "--json"} + rest).parsed()["text"].get<std::string>(),
            want);
}

TEST_F(CliRun, NeverHalfACharacter) {
  // Random weights over bytes: nearly everything is ill-formed.
  for (const char* seed : {"1", "2", "3"}) {
    const Finished f = krait({"run", model(), "--lossy-utf8", "-p", "\xE2\x82 \xFF", "-n", "200", "--seed", seed,
                              "--top-k", "0", "--ignore-eos"});
    EXPECT_EQ(f.code, 0) << f.err;
    EXPECT_TRUE(text::is_valid_utf8(f.out));
    EXPECT_THAT(f.out, HasSubstr("\xEF\xBF\xBD"));
  }
}

TEST_F(CliRun, SeedsDecide) {
  const Args a = {"-p", "abc", "-n", "20"};
  EXPECT_EQ(run(a)["ids"], run(a)["ids"]);
  EXPECT_EQ(run(a)["ids"], run(a + Args{"--seed", "0"})["ids"]);
  EXPECT_NE(run(a)["ids"], run(a + Args{"--seed", "1"})["ids"]);
  const Finished random = krait(Args{"run", model(), "--json", "--seed", "-1"} + a);
  const json j = random.parsed();
  EXPECT_EQ(random.err, "seed " + std::to_string(j["seed"].get<uint64_t>()) + "\n");
  EXPECT_EQ(run(a + Args{"--seed", std::to_string(j["seed"].get<uint64_t>())})["ids"], j["ids"]);
}

// The file holds the last logits, the sampler's place and what penalties look at: no token is read again (E1, E3).
TEST_F(CliRun, TrapE3_ASavedStateGoesOnAsIfNeverStopped) {
  for (const std::string& name : tiny_names()) {
    const std::string m = model(name), state = path(name + ".state");
    const Args options = {"--ignore-eos", "--repeat-penalty", "1.3", "--frequency-penalty",
                          "0.2",          "--repeat-last-n",  "9",   "--json"};
    const Finished f = krait(Args{"run", m, "-p", "It was", "-n", "24", "--seed", "5"} + options);
    ASSERT_EQ(f.code, 0) << f.err;
    const json whole = f.parsed();
    const json first =
        krait(Args{"run", m, "-p", "It was", "-n", "11", "--seed", "5", "--save-state", state} + options).parsed();
    const json rest = krait(Args{"run", m, "--load-state", state, "-n", "13"} + options).parsed();
    Ids joined = first["ids"];
    for (const int32_t id : rest["ids"].get<Ids>()) joined.push_back(id);
    EXPECT_EQ(joined, whole["ids"].get<Ids>()) << name;
    EXPECT_EQ(rest["timings"]["prompt_tokens"], 0) << name;
    EXPECT_EQ(first["state"], state);
  }
}

TEST_F(CliRun, TrapE1_OnlyNewTextIsReadOnTopOfAState) {
  const std::string state = path("s"), long_text(500, 'x');
  EXPECT_EQ(krait({"run", model(), "-p", long_text, "-n", "0", "--save-state", state}).code, 0);
  const json on_top = run({"--load-state", state, "-p", "and then", "-n", "9", "--seed", "1"});
  EXPECT_EQ(on_top["timings"]["prompt_tokens"], 8);
  EXPECT_EQ(on_top["ids"], run({"-p", long_text + "and then", "-n", "9", "--seed", "1"})["ids"]);
}

TEST_F(CliRun, StatesOfOtherModelsAndDamagedOnesAreRefused) {
  const std::string state = path("s");
  EXPECT_EQ(krait({"run", model(), "-p", "a", "-n", "1", "--save-state", state}).code, 0);
  EXPECT_EQ(krait({"run", model("mamba2", "", 2), "--load-state", state, "-n", "1"}).code, 3);
  EXPECT_EQ(krait({"run", model("mamba1"), "--load-state", state, "-n", "1"}).code, 3);
  std::string bytes = read_all(state);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write("altered", bytes);
  write("short", bytes.substr(0, bytes.size() / 2));
  EXPECT_EQ(krait({"run", model(), "--load-state", path("altered"), "-n", "1"}).code, 3);
  EXPECT_EQ(krait({"run", model(), "--load-state", path("short"), "-n", "1"}).code, 3);
}

TEST_F(CliRun, FullDiskOnSaveLeavesTheOldStateAndNothingElse) {
  const std::string m = model();
  fs::create_directories(path("states"));
  const std::string state = path("states/s");
  ASSERT_EQ(krait({"run", m, "-p", "a", "-n", "1", "--save-state", state}).code, 0);
  const std::string before = read_all(state);
  const Finished f = Child({"run", m, "-p", "bb", "-n", "1", "--save-state", state}, "", "", [] {
                       const rlimit least{1000, 1000};  // bytes a file may have; the error is EFBIG
                       setrlimit(RLIMIT_FSIZE, &least);
                       signal(SIGXFSZ, SIG_IGN);
                     }).wait();
  EXPECT_EQ(f.code, 1) << f.err;
  EXPECT_THAT(f.err, HasSubstr(state));
  EXPECT_EQ(read_all(state), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(path("states")), fs::directory_iterator()), 1);
  EXPECT_EQ(krait({"run", m, "-p", "a", "-n", "1", "--save-state", path("no/such/folder")}).code, 1);
}

TEST_F(CliRun, StopStringsAcrossTokens) {
  const std::string m = model();
  // Letters only, so that every token is one character.
  Args letters = {"-p", "abc", "--seed", "2", "-n", "40", "--ignore-eos"};
  for (int id = 0; id < 259; ++id) {
    if (id < 'a' || id > 'h') letters = letters + Args{"--logit-bias", std::to_string(id) + "=-inf"};
  }
  const std::string whole = run(letters)["text"];
  ASSERT_EQ(whole.size(), 40);
  const std::string stop = whole.substr(17, 3);
  const json j = run(letters + Args{"--stop", stop, "--stop", "zzz"});
  EXPECT_EQ(j["text"], whole.substr(0, whole.find(stop)));
  EXPECT_EQ(j["finish_reason"], "stop");
  EXPECT_EQ(j["stop"], stop);
  EXPECT_EQ(krait(Args{"run", m, "--stop", stop} + letters).out, "abc" + whole.substr(0, whole.find(stop)));
  // What could have become a stop string and did not is shown in the end.
  const json held = run(letters + Args{"--stop", whole.substr(38) + "a" + whole});
  EXPECT_EQ(held["text"], whole);
  EXPECT_EQ(held["finish_reason"], "length");
}

TEST_F(CliRun, StopIdsAreNotPartOfTheText) {
  const Ids ids = run({"-p", "abc", "-n", "12", "--temp", "0"})["ids"];
  ASSERT_GE(ids.size(), 2);
  const json j = run({"-p", "abc", "-n", "12", "--temp", "0", "--stop-id", std::to_string(ids[1])});
  EXPECT_EQ(j["ids"].get<Ids>(), (ids[0] == ids[1] ? Ids{} : Ids{ids[0]}));
  EXPECT_EQ(j["stop_id"], ids[1]);
  EXPECT_EQ(j["finish_reason"], "stop");
}

TEST_F(CliRun, TrapE12_ParallelTextsReadThePromptOnce) {
  const Args a = {"-p", "Once upon a time", "-n", "15", "--seed", "4", "--ignore-eos"};
  const json j = run(a + Args{"-N", "3"});
  ASSERT_EQ(j["choices"].size(), 3);
  EXPECT_EQ(j["choices"][0]["ids"], run(a)["ids"]);
  EXPECT_NE(j["choices"][0]["ids"], j["choices"][1]["ids"]);
  EXPECT_NE(j["choices"][1]["ids"], j["choices"][2]["ids"]);
  EXPECT_EQ(j["timings"]["prompt_tokens"], 16);
  EXPECT_EQ(j["timings"]["generated"], 45);
  const Finished text = krait(Args{"run", model(), "-N", "3"} + a);
  EXPECT_THAT(text.out, HasSubstr("--- 3 of 3 ---\nOnce upon a time"));
}

TEST_F(CliRun, OneBeamIsGreedyAndMoreAreNotWorse) {
  const Args a = {"-p", "abc", "-n", "10"};
  const json greedy = run(a + Args{"--temp", "0", "--logprobs", "0"}), one = run(a + Args{"--beams", "1"});
  EXPECT_EQ(greedy["ids"], one["ids"]);
  double sum = 0;
  for (const json& l : greedy["logprobs"]) sum += l["logprob"].get<double>();
  ASSERT_EQ(greedy["finish_reason"], "length");
  EXPECT_NEAR(one["logprob"].get<double>(), sum, 1e-4);
  const json best = run(a + Args{"--beams", "5", "-N", "2"});
  ASSERT_EQ(best["choices"].size(), 2);
  EXPECT_GE(best["choices"][0]["score"].get<double>(), best["choices"][1]["score"].get<double>());
}

TEST_F(CliRun, Logprobs) {
  const json j = run({"-p", "abc", "-n", "6", "--temp", "0", "--ignore-eos", "--logprobs", "4"});
  ASSERT_EQ(j["logprobs"].size(), 6);
  for (size_t i = 0; i < 6; ++i) {
    const json& l = j["logprobs"][i];
    EXPECT_EQ(l["id"], j["ids"][i]);
    ASSERT_EQ(l["top"].size(), 4);
    EXPECT_LE(l["top"][1]["logprob"].get<double>(), l["top"][0]["logprob"].get<double>());
  }
}

TEST_F(CliRun, CtrlCKeepsTheState) {
  const std::string m = model(), state = path("s");
  Child child({"run", m, "-p", "abc", "-n", "-1", "--ignore-eos", "--seed", "6", "--save-state", state}, "");
  child.read_output(200);
  child.kill(SIGINT);
  const Finished f = child.wait();
  EXPECT_EQ(f.code, 130) << f.err;
  // What comes next is a part of the uninterrupted text.
  const json rest = run({"--load-state", state, "-n", "30", "--ignore-eos"});
  const json whole = run({"-p", "abc", "-n", "20000", "--ignore-eos", "--seed", "6"});
  const Ids all = whole["ids"], tail = rest["ids"];
  EXPECT_NE(std::search(all.begin(), all.end(), tail.begin(), tail.end()), all.end());
}

TEST_F(CliRun, CtrlCBeforeTheFirstTokenSavesNothingAndSaysSo) {
  const std::string m = model(), state = path("s");
  std::string prompt;
  for (int i = 0; i < 40000; ++i) prompt += "abcdefgh";
  write("long", prompt);
  Child child({"run", m, "-f", path("long"), "-n", "5", "--save-state", state}, "");  // stalls on the full pipe
  child.read_output(1);
  child.kill(SIGINT);
  const Finished f = child.wait();
  EXPECT_EQ(f.code, 130) << f.err;
}

TEST_F(CliRun, TrapG6_WhatCannotActIsRefused) {
  const std::string m = model();
  const Finished compute = krait({"run", m, "-p", "a", "-n", "1", "--weights", "f32", "--compute", "bf16"});
  EXPECT_EQ(compute.code, 2);
  EXPECT_THAT(compute.err, HasSubstr("--compute bf16 acts on bf16 weights"));
  const Finished big = krait({"run", m, "-p", "a", "-n", "99999999999999999999"});
  EXPECT_EQ(big.code, 2);
  EXPECT_THAT(big.err, HasSubstr("not an integer of 64 bits"));
}

TEST_F(CliRun, TrapB8_TwoProcessesAgreeBitForBit) {
  const Args args = {"-p", "abc", "-n", "30", "--seed", "4", "--ignore-eos", "--logprobs", "3"};
  const json a = run(args), b = run(args);
  EXPECT_EQ(a["ids"], b["ids"]);
  EXPECT_EQ(a["logprobs"], b["logprobs"]);
}

TEST_F(CliRun, TrapH9_NoContextSize) {
  const Finished f = krait({"run", model(), "-p", "a", "-c", "512"});
  EXPECT_EQ(f.code, 2);
  EXPECT_THAT(f.err, HasSubstr("no context size"));
}

TEST_F(CliRun, AReaderThatGoesAwayEndsItQuietly) {
  Child child({"run", model(), "-p", "abc", "-n", "-1", "--ignore-eos", "--save-state", path("s")}, "");
  child.read_output(50);
  child.close_output();
  const Finished f = child.wait();
  EXPECT_EQ(f.code, 0);
  EXPECT_EQ(f.err, "");
  EXPECT_TRUE(fs::exists(path("s")));
}

TEST_F(CliRun, ChatTemplateOnOnePrompt) {
  const std::string m = model("mamba2", kTestTemplate);
  const Args rest = {"--json", "-n", "9", "--seed", "2"};
  const json chat = krait(Args{"run", m, "-p", "Hi", "--chat-template", "auto"} + rest).parsed();
  const json plain = krait(Args{"run", m, "-p", "<|user|>Hi<|end|><|assistant|>"} + rest).parsed();
  EXPECT_EQ(chat["ids"], plain["ids"]);
  EXPECT_EQ(chat["timings"]["prompt_tokens"], 5);
}

// No vocabulary is built in: a folder without one is refused, with the way out; ids need none.
TEST_F(CliRun, TrapC10_AFolderWithoutTokenizerNamesTheWayOut) {
  const std::string m = model(), vocabulary = path("elsewhere.json");
  fs::rename(m + "/tokenizer.json", vocabulary);
  const Finished f = krait({"run", m, "-p", "It was", "-n", "4"});
  EXPECT_EQ(f.code, 3);
  EXPECT_THAT(f.err, testing::AllOf(HasSubstr(m), HasSubstr("has no tokenizer"), HasSubstr("--tokenizer")));
  EXPECT_EQ(f.out, "");
  EXPECT_EQ(krait({"run", m, "-p", "It was", "-n", "4", "--tokenizer", vocabulary}).code, 0);
  EXPECT_EQ(krait({"inspect", m}).code, 0);
}

TEST_F(CliRun, TrapC10_EndOfTextAsAnIdAndAsAList) {
  const std::string m = model();
  const Args greedy = {"-p", "It was", "-n", "12", "--temp", "0"};
  const Ids free = run(greedy + Args{"--ignore-eos"})["ids"];
  const int32_t end = free[2];
  const auto first = std::find(free.begin(), free.end(), end) - free.begin();
  for (const json& eos : {json(end), json{258, end}}) {
    write("mamba21/generation_config.json", json{{"eos_token_id", eos}}.dump());
    const json j = run(greedy);
    EXPECT_EQ(j["ids"].get<Ids>(), Ids(free.begin(), free.begin() + first)) << eos;
    EXPECT_EQ(run(greedy + Args{"--ignore-eos"})["ids"].get<Ids>().size(), 12u);
  }
}

}  // namespace
}  // namespace krait::test
