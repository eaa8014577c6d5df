#include "krait/io/checkpoint.h"

#include <gmock/gmock.h>

#include "krait/io/safetensors.h"
#include "krait/io/test_folder.h"

namespace krait::io {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CheckpointOpen : public ::testing::Test {
 protected:
  fs::path config() { return dir_.write("config.json", R"({"model_type": "mamba"})"); }
  fs::path weights(const std::string& name, const std::string& tensor = "a") {
    write_safetensors(dir_.path() / name, {{tensor, Tensor::zeros({2, 3})}}, {});
    return dir_.path() / name;
  }
  fs::path gguf(const std::string& name) {
    write_gguf(dir_.path() / name, {{"general.architecture", std::string("mamba")}}, {{"g", Tensor::zeros({2, 3})}});
    return dir_.path() / name;
  }
  std::shared_ptr<const Checkpoint> open() { return Checkpoint::open(dir_.path()); }
  std::string why() {
    return bad_data([&] { open(); });
  }
  TestFolder dir_;
};

TEST_F(CheckpointOpen, FolderWithOneFile) {
  config();
  weights("model.safetensors");
  const auto c = open();
  EXPECT_EQ(c->config().at("model_type").as_string(), "mamba");
  EXPECT_EQ(c->gguf(), nullptr);
  EXPECT_EQ(c->path(), dir_.path());
  EXPECT_EQ(c->folder(), dir_.path());
  EXPECT_THAT(c->names(), ElementsAre("a"));
  EXPECT_TRUE(c->has("a"));
  EXPECT_FALSE(c->has("b"));
  EXPECT_EQ(c->shape("a"), Shape({2, 3}));
  EXPECT_THAT(bad_data([&] { c->tensor("b"); }), HasSubstr("there is no tensor \"b\""));
}

TEST_F(CheckpointOpen, FileWithConfigBesideIt) {
  const fs::path w = weights("any.safetensors");
  EXPECT_THAT(bad_data([&] { Checkpoint::open(w); }), HasSubstr("config.json is missing"));
  config();
  EXPECT_EQ(Checkpoint::open(w)->folder(), dir_.path());
  EXPECT_EQ(open()->names().size(), 1u);  // the only one of its kind
  const fs::path before = fs::current_path();
  fs::current_path(dir_.path());
  EXPECT_EQ(Checkpoint::open("any.safetensors")->folder(), ".");
  fs::current_path(before);
}

TEST_F(CheckpointOpen, Shards) {
  config();
  weights("model-00001.safetensors", "a");
  weights("model-00002.safetensors", "b");
  EXPECT_THAT(why(),
              AllOf(HasSubstr("2 .safetensors files"), HasSubstr("model-00001.safetensors, model-00002.safetensors")));
  const fs::path index =
      dir_.write("model.safetensors.index.json",
                 R"({"weight_map": {"a": "model-00001.safetensors", "b": "model-00002.safetensors"}})");
  weights("consolidated.safetensors", "c");  // a second form of the same weights, as Codestral has it
  EXPECT_THAT(open()->names(), ElementsAre("a", "b"));
  EXPECT_THAT(Checkpoint::open(index)->names(), ElementsAre("a", "b"));
}

TEST_F(CheckpointOpen, SafetensorsWinOverOthers) {
  config();
  dir_.write("pytorch_model.bin", "not read");
  gguf("m.gguf");
  weights("model.safetensors");
  EXPECT_THAT(open()->names(), ElementsAre("a"));
}

TEST_F(CheckpointOpen, TorchFiles) {
  config();
  dir_.write("training_args.bin", "no weights");
  EXPECT_THAT(why(), HasSubstr("has no weights: looked for model.safetensors, "));
  const fs::path bin = dir_.write("pytorch_model.bin", "no torch file");
  EXPECT_THAT(why(), HasSubstr(bin.string()));
  fs::rename(bin, dir_.path() / "m.pt");
  EXPECT_THAT(why(), HasSubstr("m.pt"));
  dir_.write("n.pt", "");
  EXPECT_THAT(why(), HasSubstr("2 .bin or .pt files (m.pt, n.pt)"));
  dir_.write("pytorch_model.bin.index.json", "{}");
  EXPECT_THAT(why(), HasSubstr("pytorch_model.bin.index.json: there is no weight_map"));
}

TEST_F(CheckpointOpen, TorchShards) {
  config();
  const fs::path fixture = fs::path(KRAIT_SOURCE_DIR) / "tests/fixtures/three_tensors.pt";
  fs::copy_file(fixture, dir_.path() / "pytorch_model-00001-of-00002.bin");
  dir_.write("pytorch_model-00002-of-00002.bin", "no torch file");
  const std::string one = "\"pytorch_model-00001-of-00002.bin\"", two = "\"pytorch_model-00002-of-00002.bin\"";
  const fs::path index = dir_.write("pytorch_model.bin.index.json",
                                    "{\"weight_map\": {\"a\": " + one + ", \"b\": " + one + ", \"c\": " + one + "}}");
  for (const auto& c : {open(), Checkpoint::open(index)}) {
    EXPECT_THAT(c->names(), ElementsAre("a", "b", "c"));
    EXPECT_EQ(c->shape("a"), Shape({2, 3}));
  }
  dir_.write("pytorch_model.bin.index.json",
             "{\"weight_map\": {\"a\": " + one + ", \"b\": " + one + ", \"d\": " + one + ", \"e\": " + two + "}}");
  EXPECT_THAT(why(), AllOf(HasSubstr("\"d\" is not in pytorch_model-00001"), HasSubstr("\"c\" in pytorch_model-00001"),
                           HasSubstr("00002-of-00002.bin: is no zip archive")));
}

TEST_F(CheckpointOpen, Gguf) {
  const fs::path g = gguf("m.gguf");
  for (const fs::path& p : {g, dir_.path()}) {
    const auto c = Checkpoint::open(p);
    ASSERT_NE(c->gguf(), nullptr);
    EXPECT_TRUE(c->config().is_null());
    EXPECT_EQ(c->shape("g"), Shape({2, 3}));
    EXPECT_EQ(c->folder(), dir_.path());
  }
  gguf("n.gguf");
  EXPECT_THAT(why(), HasSubstr("2 .gguf files (m.gguf, n.gguf): name the one to open"));
  fs::remove(dir_.path() / "n.gguf");
  config();  // repositories of GGUF files often carry one
  EXPECT_NE(open()->gguf(), nullptr);
}

TEST_F(CheckpointOpen, WhatIsNoCheckpoint) {
  EXPECT_THAT(message_of(ErrorCode::kFailed, [&] { Checkpoint::open(dir_.path() / "none"); }),
              HasSubstr("none: no such"));
  EXPECT_THAT(why(), HasSubstr("neither config.json nor a .gguf file"));
  weights("model.safetensors");
  EXPECT_THAT(why(), HasSubstr("neither config.json nor"));
  dir_.write("config.json", "[]");
  EXPECT_THAT(why(), HasSubstr("config.json is not a JSON object"));
  dir_.write("config.json", "{");
  EXPECT_THAT(why(), AllOf(HasSubstr("config.json"), HasSubstr("malformed JSON")));
  config();
  const fs::path other = dir_.write("tokenizer.json", "{}");
  EXPECT_THAT(bad_data([&] { Checkpoint::open(other); }), HasSubstr("expected .safetensors"));
  EXPECT_NO_THROW(open());
}

TEST(CheckpointShared, TrapC9_OriginalBinAndSafetensorsOpenWithoutFlags) {
  const fs::path data = fs::path(KRAIT_SHARED_DIR) / "data";
  if (!fs::exists(data)) GTEST_SKIP() << data << " is absent";
  EXPECT_TRUE(Checkpoint::open(data / "models/mamba1-books-12m")->has("backbone.layers.0.mixer.A_log"));
  EXPECT_TRUE(Checkpoint::open(data / "models/mamba3-books-12m/pytorch_model.bin")->config().find("ssm_cfg"));
  for (const auto& folder : fs::directory_iterator(data / "tiny")) {
    if (!folder.is_directory()) continue;
    EXPECT_FALSE(Checkpoint::open(folder)->names().empty()) << folder;
  }
}

}  // namespace
}  // namespace krait::io
