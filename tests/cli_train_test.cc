// krait train as users and accidents treat it: interrupted, killed, resumed, on a full disk, with the wrong files.
#include <cstring>

#include "krait/data/shard_writer.h"
#include "krait/text/content_hash.h"
#include "krait/text/tokenizer.h"
#include "krait/train/train_state.h"
#include "tests/cli_harness.h"

namespace krait::test {
namespace {

using testing::HasSubstr;
using testing::Not;
using train::RunFolder;

class CliTrainTest : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    write("tokenizer.json", byte_tokenizer().dump());
    const auto tokenizer = text::open_tokenizer(path("tokenizer.json"));
    make_shards("data", *tokenizer, text::content_hash(*tokenizer));
    write_config(60);
  }

  void make_shards(const std::string& name, const text::Tokenizer& tokenizer, uint64_t hash) const {
    data::ShardWriter writer(path(name), {.vocab_size = tokenizer.vocab_size(), .tokenizer_hash = hash});
    for (const char* text : {"the snake sleeps in the sun and the sun sleeps in the sea. ", "a krait is a snake. "}) {
      std::string document;
      for (int i = 0; i < 10; ++i) document += text;
      writer.add(tokenizer.encode(document));
    }
    writer.finish();
  }

  void write_config(int64_t steps, const std::string& more = "") const {
    write("run.toml",
          "[model]\nd_model = 16\nn_layer = 2\n[model.ssm_cfg]\nlayer = \"Mamba2\"\nheaddim = 8\nd_state = 8\n"
          "[data]\ntrain = '" +
              path("data") + "'\nvalid = '" + path("data") + "'\nlength = 32\ntokenizer = '" + path("tokenizer.json") +
              "'\n[schedule]\npeak = 1e-2\n[train]\nsteps = " + std::to_string(steps) +
              "\nbatch = 4\n[validation]\nevery = 20\nbatches = 2\n[save]\nevery = 10\n" + more);
  }

  Args train(const std::string& out, const Args& more = {}) const {
    return Args{"train", path("run.toml"), "--out", path(out), "-t", "1"} + more;
  }
  std::vector<int64_t> steps(const std::string& run) const { return RunFolder::steps(path(run)); }
  // Everything that a checkpoint holds.
  std::string content(const std::string& run, int64_t step) const {
    std::string all;
    for (const char* name : {"model.safetensors", "optimizer.safetensors", "state.json", "config.json"}) {
      all += read_all(RunFolder::checkpoint(path(run), step) / name);
    }
    return all;
  }
};

TEST_F(CliTrainTest, TrainsAModelThatTalks) {
  write_config(60, "[sample]\nprompts = \"the \"\nevery = 30\ntokens = 8\n");
  const Finished f = krait(train("run"));
  ASSERT_EQ(f.code, 0) << f.err;
  EXPECT_THAT(f.err, HasSubstr("step 60/60"));
  EXPECT_THAT(f.err, HasSubstr("% of peak"));
  EXPECT_THAT(f.err, HasSubstr("validation loss"));
  EXPECT_THAT(f.err, Not(HasSubstr("\r")));  // no terminal
  EXPECT_EQ(steps("run").back(), 60);
  std::ifstream metrics(path("run/metrics.jsonl"));
  int64_t step = 0, validations = 0, samples = 0;
  double first = 0, last = 0;
  for (std::string line; std::getline(metrics, line);) {
    const json j = json::parse(line);
    validations += j.contains("valid_loss") ? 1 : 0;
    samples += j.contains("text") ? 1 : 0;
    if (!j.contains("loss")) continue;
    EXPECT_EQ(j.at("step"), ++step);
    last = j.at("loss");
    if (step == 1) first = last;
  }
  EXPECT_EQ(step, 60);
  EXPECT_EQ(validations, 3);
  EXPECT_EQ(samples, 2);
  EXPECT_LT(last, 0.7 * first);
  const std::string checkpoint = RunFolder::checkpoint(path("run"), 60).string();
  const Finished talk = krait({"run", checkpoint, "-p", "the ", "-n", "8", "--temp", "0", "--json"});
  EXPECT_EQ(talk.code, 0) << talk.err;

  EXPECT_EQ(krait({"export", path("run"), path("model"), "--dtype", "bf16", "--step", "best"}).code, 0);
  EXPECT_EQ(krait({"run", path("model"), "-p", "the ", "-n", "4"}).code, 0);
  EXPECT_EQ(krait({"export", path("run"), path("model.gguf")}).code, 0);
  const Finished same = krait({"run", path("model.gguf"), "-p", "the ", "-n", "8", "--temp", "0", "--json"});
  EXPECT_EQ(same.parsed().at("text"), talk.parsed().at("text"));
  EXPECT_EQ(krait({"export", path("run"), path("x"), "--ema"}).code, 2);
  EXPECT_EQ(krait({"export", path("run"), path("x"), "--step", "7"}).code, 2);
}

TEST_F(CliTrainTest, ExplainsAndTrainsNothing) {
  const Finished f = krait({"train", path("run.toml"), "--explain", "--set", "train.weights=bf16"});
  EXPECT_EQ(f.code, 0) << f.err;
  EXPECT_THAT(f.out,
              testing::ContainsRegex("layers\\.0\\.mixer\\.A_log +\\[4\\] +f32 +no +log of uniform in 1 \\.\\. 16"));
  EXPECT_THAT(f.out, testing::ContainsRegex("layers\\.1\\.mixer\\.in_proj\\.weight +\\[84, 16\\] +bf16 +yes +uniform"));
  EXPECT_THAT(f.out, testing::ContainsRegex("embedding\\.weight +\\[264, 16\\] +bf16 +yes +normal, deviation 0.02"));
  EXPECT_THAT(f.out, HasSubstr("steps         60 of 4 samples"));
  EXPECT_THAT(f.out, HasSubstr("rises to 0.01 over 6 steps"));
  EXPECT_FALSE(fs::exists(path("run")));
}

// Each recipe of a task can be trained as it stands, and its head names the checkpoint that it ends with.
TEST_F(CliTrainTest, RecipesOfTasksArePlans) {
  int recipes = 0;
  for (const auto& entry : fs::directory_iterator(std::string(KRAIT_SOURCE_DIR) + "/recipes/tasks")) {
    const std::string file = entry.path().string(), text = read_all(file);
    const Finished f = krait({"train", file, "--explain"});
    EXPECT_EQ(f.code, 0) << file << f.err;
    const size_t steps = text.find("\nsteps = ");
    ASSERT_NE(steps, std::string::npos) << file;
    const std::string last = RunFolder::checkpoint(entry.path().stem(), std::stoll(text.substr(steps + 9))).string();
    EXPECT_THAT(text, HasSubstr(" " + last + " --lengths ")) << file;
    ++recipes;
  }
  EXPECT_GE(recipes, 3);
}

TEST_F(CliTrainTest, SignalsEndItWithACheckpointAndItGoesOnToTheSameBits) {
  write_config(300);
  ASSERT_EQ(krait(train("whole")).code, 0);
  for (const int signal : {SIGTERM, SIGINT}) {
    const std::string run = "run" + std::to_string(signal);
    Child child(train(run), "");
    while (!fs::exists(path(run + "/metrics.jsonl")) || read_all(path(run + "/metrics.jsonl")).empty()) usleep(1000);
    child.kill(signal);
    const Finished f = child.wait();
    EXPECT_EQ(f.code, 128 + signal) << f.err;
    EXPECT_THAT(f.err, HasSubstr("saved"));
    ASSERT_FALSE(steps(run).empty());
    ASSERT_LT(steps(run).back(), 300) << "the signal came too late to show anything";
    EXPECT_EQ(krait(train(run, {"--resume"})).code, 0);
    EXPECT_TRUE(content(run, 300) == content("whole", 300));
    std::ifstream metrics(path(run + "/metrics.jsonl"));
    int64_t step = 0;
    for (std::string line; std::getline(metrics, line);) {
      if (!json::parse(line).contains("loss")) continue;
      EXPECT_EQ(json::parse(line).at("step"), ++step);
    }
    EXPECT_EQ(step, 300);
  }
}

// Wherever it is killed, what is there can be gone on with, and the end is the same to the bit.
TEST_F(CliTrainTest, KilledAtRandomMoments) {
  ASSERT_EQ(krait(train("whole")).code, 0);
  const auto go_on = [&] {
    const Args often = {"--set", "save.every=1"};
    return train("run", steps("run").empty() ? often : often + Args{"--resume"});
  };
  Rng rng(6);
  for (int i = 0; i < 8; ++i) {
    Child child(go_on(), "");
    usleep(static_cast<useconds_t>(rng.below(400000)));
    child.kill(SIGKILL);
    const Finished f = child.wait();
    ASSERT_TRUE(f.code == 0 || f.code == 128 + SIGKILL) << f.code << f.err;
    for (const int64_t step : steps("run")) {
      EXPECT_NO_THROW(io::Checkpoint::open(RunFolder::checkpoint(path("run"), step)));
    }
  }
  EXPECT_EQ(krait(go_on()).code, 0);
  EXPECT_TRUE(content("run", 60) == content("whole", 60));
}

TEST_F(CliTrainTest, AFullDiskLeavesTheLastCheckpointIntact) {
  write_config(1000000);  // it will not be done before the signal
  Child first(train("run"), "");
  while (steps("run").empty()) usleep(1000);
  first.kill(SIGTERM);
  ASSERT_EQ(first.wait().code, 128 + SIGTERM);
  const int64_t last = steps("run").back();
  const std::string before = content("run", last);
  Child full(train("run", {"--resume"}), "", "", [] {
    const rlimit small{20000, 20000};
    setrlimit(RLIMIT_FSIZE, &small);
  });
  const Finished f = full.wait();
  EXPECT_EQ(f.code, 1) << f.err;
  EXPECT_THAT(f.err, HasSubstr("could not be saved; the last checkpoint, "));
  EXPECT_THAT(f.err, HasSubstr("is untouched"));
  EXPECT_EQ(steps("run").back(), last);
  EXPECT_TRUE(content("run", last) == before);
  Child again(train("run", {"--resume"}), "");
  while (steps("run").back() == last) usleep(1000);
  again.kill(SIGTERM);
  EXPECT_EQ(again.wait().code, 128 + SIGTERM);
}

TEST_F(CliTrainTest, WhatCannotBeGoneOnWithIsRefusedByName) {
  EXPECT_EQ(krait(train("run", {"--resume"})).code, 2);  // nothing is there
  ASSERT_EQ(krait(train("run", {"--set", "train.steps=10"})).code, 0);
  EXPECT_THAT(krait(train("run", {"--set", "train.steps=10"})).err, HasSubstr("has checkpoints already: --resume"));
  const Finished seed = krait(train("run", {"--resume", "--set", "train.steps=10", "--set", "train.seed=9"}));
  EXPECT_EQ(seed.code, 3);
  EXPECT_THAT(seed.err, HasSubstr("train.seed: 9 now, 1 in the checkpoint"));
  const auto tokenizer = text::open_tokenizer(path("tokenizer.json"));
  data::ShardWriter more(path("more"),
                         {.vocab_size = tokenizer->vocab_size(), .tokenizer_hash = text::content_hash(*tokenizer)});
  more.add(tokenizer->encode("another text, long enough to be a sample of thirty-two tokens"));
  more.finish();
  const Finished data =
      krait(train("run", {"--resume", "--set", "train.steps=10", "--set", "data.train=" + path("more")}));
  EXPECT_EQ(data.code, 3);
  EXPECT_THAT(data.err, AllOf(HasSubstr("data.content: "), HasSubstr("data.tokens: 61 now, 790 in the checkpoint")));
  // What the weights do not depend on may differ.
  EXPECT_EQ(krait(train("run", {"--resume", "--set", "train.steps=10", "--set", "train.micro_batch=1"})).code, 0);
}

TEST_F(CliTrainTest, WrongFilesAreRefused) {
  json other = byte_tokenizer();
  other["added_tokens"].erase(2);
  write("other.json", other.dump());
  const Finished tokenizer = krait(train("run", {"--set", "data.tokenizer=" + path("other.json")}));
  EXPECT_EQ(tokenizer.code, 3);
  EXPECT_THAT(tokenizer.err, HasSubstr("is not the tokenizer that the shards were made with"));

  const Finished twice =
      krait(train("run", {"--set", "data.train=[\"" + path("data") + "\", \"" + path("data") + "\"]"}));
  EXPECT_EQ(twice.code, 3);
  EXPECT_THAT(twice.err, HasSubstr("is named twice"));
  const Finished huge = krait(train("run", {"--set", "train.batch=1000000000000000"}));
  EXPECT_EQ(huge.code, 3);
  EXPECT_THAT(huge.err, HasSubstr("more than the 1e+09 that a step may have"));

  std::string shard = read_all(path("data/shard-00000.ktok"));
  shard[shard.size() - 5] = static_cast<char>(shard[shard.size() - 5] ^ 1);
  write("data/shard-00000.ktok", shard);
  const Finished corrupt = krait(train("run"));
  EXPECT_EQ(corrupt.code, 3);
  EXPECT_THAT(corrupt.err, HasSubstr("shard-00000.ktok"));

  write("bad.toml", "[train]\nstepz = 3\n");
  const Finished config = krait({"train", path("bad.toml")});
  EXPECT_EQ(config.code, 3);
  EXPECT_THAT(config.err, HasSubstr("bad.toml:2: [train] has no key 'stepz'"));
  EXPECT_EQ(krait({"train", path("absent.toml")}).code, 1);
  EXPECT_EQ(krait({"train", path("run.toml"), "--explain", "--resume"}).code, 2);
  EXPECT_FALSE(fs::exists(path("run")));
}

TEST_F(CliTrainTest, MetricsOfARunWithoutCheckpointsAreKept) {
  fs::create_directory(path("run"));
  write("run/metrics.jsonl", "{\"step\": 5, \"loss\": 1}\n");
  const Finished f = krait(train("run", {"--set", "train.steps=2"}));
  EXPECT_EQ(f.code, 0) << f.err;
  EXPECT_THAT(f.err, HasSubstr("metrics.jsonl.1"));
  EXPECT_THAT(read_all(path("run/metrics.jsonl.1")), HasSubstr("\"loss\": 1}"));
}

TEST_F(CliTrainTest, FineTunesACheckpoint) {
  ASSERT_EQ(krait(train("run", {"--set", "train.steps=20"})).code, 0);
  write("more.toml", "[model]\nfrom = '" + RunFolder::checkpoint(path("run"), 20).string() + "'\n[data]\ntrain = '" +
                         path("data") + "'\nlength = 32\n[train]\nsteps = 3\nbatch = 4\n[schedule]\npeak = 1e-4\n");
  const Finished f = krait({"train", path("more.toml"), "--out", path("more")});
  ASSERT_EQ(f.code, 0) << f.err;
  std::ifstream before(path("run/metrics.jsonl")), after(path("more/metrics.jsonl"));
  std::string first, line;
  std::getline(before, first);
  std::getline(after, line);
  EXPECT_LT(json::parse(line).at("loss"), json::parse(first).at("loss"));
  EXPECT_TRUE(fs::exists(RunFolder::checkpoint(path("more"), 3) / "tokenizer.json"));  // that of the checkpoint
}

// [lora]: only factors and initial states learn, and say what they are; the checkpoint is an adapter for the base.
TEST_F(CliTrainTest, TrainsAnAdapter) {
  ASSERT_EQ(krait(train("run")).code, 0);
  const std::string base = RunFolder::checkpoint(path("run"), 60).string();
  std::string text;
  for (int i = 0; i < 12; ++i) text += "the sea is a sun and a krait sleeps. ";
  write("text", text);
  ASSERT_EQ(krait({"tokenize", path("text"), "--tokenizer", path("tokenizer.json"), "--out", path("other")}).code, 0);
  write("lora.toml", "[model]\nfrom = '" + base + "'\n[lora]\nrank = 4\ntargets = ['in_proj', 'out_proj']\n" +
                         "initial_states = true\n[data]\ntrain = '" + path("other") +
                         "'\nlength = 32\n[train]\nsteps = 40\nbatch = 4\n[schedule]\npeak = 3e-2\n");
  const auto lora = [&](const Args& more) { return krait(Args{"train", path("lora.toml"), "-t", "1"} + more); };
  const Finished plan = krait({"train", path("lora.toml"), "--explain"});
  EXPECT_THAT(plan.out,
              testing::ContainsRegex("layers\\.0\\.mixer\\.in_proj\\.weight\\.lora_B +\\[84, 4\\] +f32 +yes +0"));
  EXPECT_THAT(plan.out, Not(HasSubstr("A_log")));
  const Finished f = lora({"--out", path("lora")});
  ASSERT_EQ(f.code, 0) << f.err;
  EXPECT_THAT(f.err, AllOf(HasSubstr("4 of 7 modules"), testing::ContainsRegex("in_proj +2 of 2")));
  const std::string adapter = RunFolder::checkpoint(path("lora"), 40).string();
  EXPECT_FALSE(fs::exists(adapter + "/model.safetensors"));
  const auto perplexity = [&](const Args& more) {
    const Finished p = krait(Args{"perplexity", base, path("text"), "--json"} + more);
    EXPECT_EQ(p.code, 0) << p.err;
    return p.parsed().at("perplexity").get<double>();
  };
  EXPECT_LT(perplexity({"--lora", adapter}), 0.9 * perplexity({}));

  const Finished other = lora({"--out", path("lora"), "--resume", "--set", "lora.alpha=8"});
  EXPECT_EQ(other.code, 3);
  EXPECT_THAT(other.err, HasSubstr("lora.alpha: 8.0 now, 4.0 in the checkpoint"));
  const std::string elsewhere = RunFolder::checkpoint(path("run"), 50).string();
  EXPECT_THAT(lora({"--out", path("lora"), "--resume", "--set", "model.from=" + elsewhere}).err,
              HasSubstr("lora.base: "));
  const Finished unknown = lora({"--out", path("none"), "--set", "lora.targets=[\"in_proj\", \"q_proj\"]"});
  EXPECT_EQ(unknown.code, 3);
  EXPECT_THAT(unknown.err, HasSubstr("'q_proj' names nothing that can be adapted"));
  EXPECT_FALSE(fs::exists(path("none")));
  EXPECT_THAT(krait({"export", path("lora"), path("x")}).err, HasSubstr("holds an adapter"));
}

}  // namespace
}  // namespace krait::test
