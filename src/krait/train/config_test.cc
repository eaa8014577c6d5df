#include "krait/train/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "krait/io/test_folder.h"

namespace krait::train {
namespace {

using io::bad_data;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kShards = R"([model]
config = "config.json"
[data]
train = "data/train"
valid = ["data/valid", "more/*.ktok"]
length = 64
tokenizer = "tokenizer.json"
[train]
steps = 100
batch = 8
)";

constexpr const char* kTask = R"([model]
d_model = 64
n_layer = 2
seed = 7
[model.ssm_cfg]
layer = "Mamba2"
headdim = 16
[data]
task = "induction_heads"
options = { length = 32, vocab = 8 }
valid_options = { length = 128 }
[optimizer]
name = "lion"
weight_decay = 0.5
[schedule]
shape = "wsd"
peak = 1e-3
warmup = 0.05
decay = 0.3
[train]
steps = 1e3
batch = 16
micro_batch = 4
weights = "bf16"
[stop]
patience = 3
)";

TEST(TrainConfig, ReadsShards) {
  const TrainConfig c = parse_config(kShards, "a.toml");
  EXPECT_EQ(c.model.config, "config.json");
  EXPECT_EQ(c.data.train, std::vector<std::string>{"data/train"});
  EXPECT_EQ(c.data.valid, (std::vector<std::string>{"data/valid", "more/*.ktok"}));
  EXPECT_EQ(c.data.length, 64);
  EXPECT_EQ(c.train.steps, 100);
  EXPECT_EQ(c.optimizer.beta2, 0.95);
  EXPECT_EQ(c.schedule.warmup, 0.1);
  EXPECT_EQ(c.train.clip, 1.0);
  EXPECT_TRUE(c.validates());
}

TEST(TrainConfig, ReadsATask) {
  const TrainConfig c = parse_config(kTask, "a.toml");
  EXPECT_EQ(c.model.keys.at("ssm_cfg").at("headdim").as_integer(), 16);
  EXPECT_EQ(c.model.keys.at("d_model").as_integer(), 64);
  EXPECT_EQ(c.model.seed, 7u);
  EXPECT_EQ(c.data.options.at("length"), "32");
  EXPECT_EQ(c.data.valid_options.at("length"), "128");
  EXPECT_EQ(c.optimizer.name, "lion");
  EXPECT_EQ(c.schedule.decay, 0.3);
  EXPECT_EQ(c.train.steps, 1000);
  EXPECT_EQ(c.validation.batches, 1);  // tasks have no end
}

TEST(TrainConfig, NamesEveryMistakeWithItsLine) {
  const std::string what = bad_data([] {
    parse_config(R"([model]
config = "config.json"
d_model = 64
[data]
train = "x"
lenght = 3
mode = "tight"
[optimizer]
beta1 = 1.5
name = 3
[train]
steps = "many"
batch = 0
[trian]
steps = 3
)",
                 "bad.toml");
  });
  EXPECT_THAT(what, HasSubstr("bad.toml:3: [model] d_model has no effect beside config"));
  EXPECT_THAT(what, HasSubstr("bad.toml:6: [data] has no key 'lenght'"));
  EXPECT_THAT(what, HasSubstr("bad.toml:7: [data] mode is 'tight', expected one of contiguous, packed, windows"));
  EXPECT_THAT(what, HasSubstr("bad.toml:9: [optimizer] beta1 is 1.5"));
  EXPECT_THAT(what, HasSubstr("bad.toml:10: [optimizer] name is 3, expected a string"));
  EXPECT_THAT(what, HasSubstr("bad.toml:12: [train] steps is a string, expected an integer from 1 on"));
  EXPECT_THAT(what, HasSubstr("bad.toml:13: [train] batch is 0, expected an integer from 1 on"));
  EXPECT_THAT(what, HasSubstr("bad.toml:14: there is no table [trian]"));
}

TEST(TrainConfig, RefusesTextThatIsNoToml) {
  EXPECT_THAT(bad_data([] { parse_config("[model]\nconfig = \n", "bad.toml"); }), HasSubstr("bad.toml:2"));
}

TEST(TrainConfig, ChangesWinAndAreChecked) {
  const TrainConfig c =
      parse_config(kShards, "a.toml", {"train.steps=7", "data.mode=packed", "model.config=other.json"});
  EXPECT_EQ(c.train.steps, 7);
  EXPECT_EQ(c.data.mode, "packed");
  EXPECT_EQ(c.model.config, "other.json");
  EXPECT_EQ(c.train.batch, 8);
  EXPECT_THAT(bad_data([] { parse_config(kShards, "a.toml", {"train.stpes=7"}); }),
              HasSubstr("--set train.stpes=7: [train] has no key 'stpes'"));
  EXPECT_THAT(io::message_of(ErrorCode::kUsage, [] { parse_config(kShards, "a.toml", {"steps"}); }),
              HasSubstr("'steps' is not KEY=VALUE"));
}

// Each key that something else in the file makes meaningless, and what is missing or contradicts.
TEST(TrainConfig, RefusesKeysWithoutEffect) {
  const auto problem = [](const char* base, const std::string& change) {
    return bad_data([&] { parse_config(base, "a.toml", {change}); });
  };
  EXPECT_THAT(problem(kShards, "schedule.decay=0.1"), HasSubstr("[schedule] decay has no effect on shape cosine"));
  EXPECT_THAT(problem(kShards, "data.options={length=3}"), HasSubstr("[data] options has no effect without a task"));
  EXPECT_THAT(problem(kShards, "sample.tokens=3"), HasSubstr("[sample] tokens has no effect without prompts"));
  EXPECT_THAT(problem(kShards, "model.from=x"), HasSubstr("[model] from and config"));
  EXPECT_THAT(problem(kShards, "train.tokens=100"), HasSubstr("[train] steps or tokens, not both"));
  EXPECT_THAT(problem(kShards, "train.micro_batch=3"), HasSubstr("micro_batch does not divide the 8 samples"));
  EXPECT_THAT(problem(kTask, "data.length=3"), HasSubstr("[data] length has no effect on a task"));
  EXPECT_THAT(problem(kTask, "data.task=chess"), HasSubstr("[data] task is 'chess', expected one of"));
  EXPECT_THAT(problem(kTask, "optimizer.eps=1e-8"), HasSubstr("[optimizer] eps has no effect on lion"));
  EXPECT_THAT(problem(kTask, "schedule.warmup=0.9"), HasSubstr("more than the whole run"));
  EXPECT_THAT(bad_data([] { parse_config("[train]\n", "a.toml"); }),
              AllOf(HasSubstr("[model] says no model"), HasSubstr("[data] train is missing"),
                    HasSubstr("[train] steps or tokens is missing"), HasSubstr("[train] batch or batch_tokens")));
  const std::string no_valid = "[model]\nconfig = \"c\"\n[data]\ntrain = \"x\"\n[train]\nsteps = 1\nbatch = 1\n";
  EXPECT_THAT(problem(no_valid.c_str(), "stop.patience=2"), HasSubstr("patience has no effect without [data] valid"));
  EXPECT_THAT(problem(no_valid.c_str(), "save.best=true"), HasSubstr("best has no effect without [data] valid"));
}

constexpr const char* kLora = R"([model]
from = "base"
[lora]
rank = 8
dropout = 0.05
targets = ["in_proj", "out_proj"]
rslora = true
[data]
train = "x"
[train]
steps = 3
batch = 2
)";

TEST(TrainConfig, ReadsLora) {
  EXPECT_FALSE(parse_config(kShards, "a.toml").lora.enabled);
  const LoraConfig l = parse_config(kLora, "a.toml").lora;
  EXPECT_TRUE(l.enabled);
  EXPECT_EQ(l.settings.rank, 8);
  EXPECT_EQ(l.settings.alpha, 8);  // the rank, unless it is given
  EXPECT_EQ(l.settings.dropout, 0.05);
  EXPECT_EQ(l.settings.targets, (std::vector<std::string>{"in_proj", "out_proj"}));
  EXPECT_TRUE(l.settings.rslora);
  EXPECT_EQ(l.settings.base_model, "base");
  EXPECT_FALSE(l.initial_states);
  EXPECT_EQ(parse_config(kLora, "a.toml", {"lora.alpha=32"}).lora.settings.alpha, 32);
  EXPECT_FALSE(l.settings.targets_are_pattern);
  const LoraSettings p =
      parse_config(kLora, "a.toml", {R"(lora.targets='.*\.(in|out)_proj')", "lora.exclude=[\"layers.0\"]"})
          .lora.settings;
  EXPECT_TRUE(p.targets_are_pattern) << "a string is a regular expression";
  EXPECT_EQ(p.targets, (std::vector<std::string>{R"(.*\.(in|out)_proj)"}));
  EXPECT_EQ(p.exclude, (std::vector<std::string>{"layers.0"}));
  EXPECT_FALSE(p.exclude_is_pattern);
  EXPECT_FALSE(parse_config(kLora, "a.toml", {"lora.targets=all-linear"}).lora.settings.targets_are_pattern);
}

TEST(TrainConfig, ReadsDistill) {
  EXPECT_TRUE(parse_config(kShards, "a.toml").distill.teacher.empty());
  const DistillConfig d = parse_config(kShards, "a.toml", {"distill.teacher=big", "distill.weight=1"}).distill;
  EXPECT_EQ(d.teacher, "big");
  EXPECT_EQ(d.weight, 1);
  EXPECT_EQ(d.temperature, 2);
  const auto problem = [](const std::vector<std::string>& changes) {
    return bad_data([&] { parse_config(kShards, "a.toml", changes); });
  };
  EXPECT_THAT(problem({"distill.weight=0.5"}), HasSubstr("[distill] teacher is missing"));
  EXPECT_THAT(problem({"distill.teacher=big", "distill.weight=0"}), HasSubstr("[distill] weight is 0"));
  EXPECT_THAT(problem({"distill.teacher=big", "distill.temperature=0"}), HasSubstr("[distill] temperature is 0"));
  EXPECT_THAT(problem({"distill.teacher=big", "distill.alpha=1"}), HasSubstr("[distill] has no key 'alpha'"));
}

TEST(TrainConfig, RefusesLoraWithoutEffect) {
  const auto problem = [](const char* base, const std::vector<std::string>& changes) {
    return bad_data([&] { parse_config(base, "a.toml", changes); });
  };
  EXPECT_THAT(problem(kShards, {"lora.targets=in_proj"}), HasSubstr("[lora] wants [model] from = CHECKPOINT"));
  EXPECT_THAT(problem(kLora, {"lora.targets=[]"}), HasSubstr("[lora] targets is missing"));
  EXPECT_THAT(problem(kLora, {"lora.targets=[]", "lora.initial_states=true"}),
              AllOf(HasSubstr("rank has no effect without targets"), HasSubstr("dropout has no effect"),
                    Not(HasSubstr("is missing"))));
  EXPECT_THAT(problem(kLora, {"train.weights=bf16"}), HasSubstr("[train] weights has no effect beside [lora]"));
  EXPECT_THAT(problem(kLora, {"lora.r=4"}), HasSubstr("[lora] has no key 'r'"));
}

TEST(TrainConfig, BatchesInTokens) {
  const std::string text =
      "[model]\nconfig = \"c\"\n[data]\ntrain = \"x\"\nlength = 100\n[train]\ntokens = 5000\nbatch_tokens = 400\n";
  EXPECT_EQ(parse_config(text, "a").train.batch_tokens, 400);
  EXPECT_THAT(bad_data([&] { parse_config(text, "a", {"train.batch_tokens=450"}); }),
              HasSubstr("batch_tokens is no multiple of the length 100"));
}

}  // namespace
}  // namespace krait::train
