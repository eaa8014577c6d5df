// krait convert: every form holds the same model and the same tokenizer, and failures leave nothing behind.
#include "krait/io/gguf.h"
#include "tests/cli_harness.h"

namespace krait::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class ConvertTest : public CliTest {
 protected:
  // The bits of the logits of some ids, as the program writes them.
  std::string logits(const std::string& model) const {
    std::string npy =
        std::string("\x93NUMPY\x01\x00\x76\x00", 10) + "{'descr': '<i4', 'fortran_order': False, 'shape': (8,), }";
    npy.resize(127, ' ');
    npy += "\n";
    for (int32_t id : {3, 200, 17, 256, 0, 99, 99, 4}) npy.append(reinterpret_cast<const char*>(&id), 4);
    write("ids.npy", npy);
    const Finished f = krait({"logits", model, "--ids", path("ids.npy"), "--out", path("logits.npy")});
    EXPECT_EQ(f.code, 0) << model << ": " << f.err;
    return read_all(path("logits.npy"));
  }
  std::string tokens(const std::string& model) const {
    const Finished f = krait({"tokenize", model, "-p", "It's a dark, d\xC3\xA4rk night;<|end|>  1234"});
    EXPECT_EQ(f.code, 0) << f.err;
    return f.out;
  }
  std::vector<std::string> names(const fs::path& folder) const {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(folder)) all.push_back(entry.path().filename().string());
    std::ranges::sort(all);
    return all;
  }
  // As model(), for the generations whose tiny MLP no folder can express: the folder's form has multiples of 128.
  std::string any_model(const std::string& generation) const {
    if (!generation.starts_with("mamba3")) return model(generation);
    ModelSpec spec = tiny_spec(generation);
    spec.vocab_size = 259;
    spec.padded_vocab_size = 272;
    for (SubBlockSpec& b : spec.blocks) {
      if (b.mixer == "gated_mlp") b.config.set("d_hidden", 128);
    }
    const std::string out = path(generation);
    save_folder(spec, random_params(spec, 1, DType::kBF16, pool()), out, CheckpointForm::kAuto);
    write(generation + "/tokenizer.json", byte_tokenizer().dump());
    write(generation + "/tokenizer_config.json", R"({"eos_token": "<|end|>"})");
    return out;
  }
  Finished convert(const Args& args) const { return krait(Args{"convert"} + args); }
};

// Traps C1 and C9: safetensors -> GGUF -> run is safetensors -> run, and back again.
TEST_F(ConvertTest, TrapC1_TrapC9_TheSameModelInEveryForm) {
  for (const std::string& generation : tiny_names()) {
    SCOPED_TRACE(generation);
    const std::string m = any_model(generation), gguf = path(generation + ".gguf"),
                      again = path(generation + "-again.gguf");
    const std::string folder = path(generation + "-folder");
    ASSERT_EQ(convert({m, gguf}).code, 0);
    ASSERT_EQ(convert({gguf, again}).code, 0);
    ASSERT_EQ(convert({gguf, folder, "--to", "safetensors"}).code, 0);
    const std::string want = logits(m);
    EXPECT_EQ(logits(gguf), want);
    EXPECT_EQ(logits(again), want);
    EXPECT_EQ(tokens(gguf), tokens(m));
    EXPECT_EQ(tokens(again), tokens(m));
    EXPECT_EQ(tokens(folder), tokens(m));
    EXPECT_EQ(krait({"inspect", folder, "--json"}).parsed()["parameters"],
              krait({"inspect", m, "--json"}).parsed()["parameters"]);
  }
}

TEST_F(ConvertTest, TokenizerFilesTravel) {
  const std::string m = model();
  write("mamba21/special_tokens_map.json", "{}");
  write("mamba21/generation_config.json", "{\"eos_token_id\": 256}");
  write("mamba21/training_log.txt", "stays");
  ASSERT_EQ(convert({m, path("out")}).code, 0);
  EXPECT_THAT(names(path("out")), ElementsAre("config.json", "generation_config.json", "model.safetensors",
                                              "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"));
  EXPECT_EQ(read_all(path("out/tokenizer.json")), read_all(m + "/tokenizer.json"));
  ASSERT_EQ(convert({m, path("bare"), "--no-tokenizer"}).code, 0);
  EXPECT_THAT(names(path("bare")), ElementsAre("config.json", "model.safetensors"));
}

TEST_F(ConvertTest, GgufHoldsTheVocabulary) {
  const std::string m = model();
  ASSERT_EQ(convert({m, path("m.gguf"), "--dtype", "f16"}).code, 0);
  const auto g = io::Gguf::open(path("m.gguf"));
  EXPECT_EQ(g->str("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(g->str("tokenizer.ggml.pre"), "gpt-2");
  EXPECT_EQ(g->integer("tokenizer.ggml.eos_token_id"), 256);
  EXPECT_EQ(g->str("tokenizer.huggingface.json"), read_all(m + "/tokenizer.json"));
  const auto words = g->strings("tokenizer.ggml.tokens");
  const auto types = g->integers32("tokenizer.ggml.token_type");
  ASSERT_EQ(words.size(), 272u);  // as many as the embedding has rows
  EXPECT_EQ(words[256], "<|end|>");
  EXPECT_EQ(types[256], 3);
  EXPECT_EQ(words[271], "[PAD271]");
  EXPECT_EQ(types[271], 5);
  EXPECT_EQ(g->tensors().at("blk.0.ssm_in.weight").dtype(), DType::kF16);
  EXPECT_EQ(g->tensors().at("blk.0.ssm_conv1d.weight").dtype(), DType::kF32);
  EXPECT_EQ(krait({"inspect", path("m.gguf"), "--json"}).parsed()["vocab_size"], 259);
}

TEST_F(ConvertTest, SentencePieceBecomesALlamaVocabulary) {
  ModelSpec spec = tiny_spec("mamba2");
  spec.vocab_size = spec.padded_vocab_size = 2048;
  save_folder(spec, random_params(spec, 1, DType::kF32, pool()), path("sp"), CheckpointForm::kAuto);
  fs::copy_file(fs::path(KRAIT_SOURCE_DIR) / "tests/fixtures/sentencepiece_bpe.model", path("sp/tokenizer.model"));
  const Finished f = convert({path("sp"), path("sp.gguf")});
  ASSERT_EQ(f.code, 0) << f.err;
  EXPECT_EQ(io::Gguf::open(path("sp.gguf"))->str("tokenizer.ggml.model"), "llama");
  EXPECT_EQ(tokens(path("sp.gguf")), tokens(path("sp")));
}

// GGUF's own keys cannot say that a text is normalized; the tokenizer.json kept beside them can.
TEST_F(ConvertTest, GgufKeepsTheNormalizer) {
  const std::string m = model();
  json t = byte_tokenizer();
  t["normalizer"] = {{"type", "NFC"}};
  write("mamba21/tokenizer.json", t.dump());
  ASSERT_EQ(convert({m, path("m.gguf")}).code, 0);
  for (const std::string& from : {m, path("m.gguf")}) {
    EXPECT_EQ(krait({"tokenize", from, "--json", "-p", "e\u0301"}).parsed()["ids"], (json{0xC3, 0xA9})) << from;
    EXPECT_EQ(krait({"tokenize", from, "--json", "-p", "<|end|>"}).parsed()["ids"], (json{256})) << from;
  }
}

TEST_F(ConvertTest, TokenizersWithoutCounterpartAreRefused) {
  const std::string m = model();
  json t = byte_tokenizer();
  t["normalizer"] = {{"type", "Lowercase"}};
  write("mamba21/tokenizer.json", t.dump());
  const Finished f = convert({m, path("m.gguf")});
  EXPECT_EQ(f.code, 3);
  EXPECT_THAT(f.err, AllOf(HasSubstr("Lowercase"), HasSubstr("--no-tokenizer")));
  EXPECT_FALSE(fs::exists(path("m.gguf")));
  EXPECT_EQ(convert({m, path("m.gguf"), "--no-tokenizer"}).code, 0);
  EXPECT_EQ(io::Gguf::open(path("m.gguf"))->str("tokenizer.ggml.model"), "none");

  t = byte_tokenizer();
  t["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", "[ab]"}}}, {"behavior", "Isolated"}, {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  write("mamba21/tokenizer.json", t.dump());
  EXPECT_THAT(convert({m, path("n.gguf")}).err, HasSubstr("[ab]"));
  t = byte_tokenizer();
  t["added_tokens"][0]["id"] = 272;
  write("mamba21/tokenizer.json", t.dump());
  EXPECT_THAT(convert({m, path("n.gguf")}).err, HasSubstr("id 272, the model has 272 rows"));
  EXPECT_FALSE(fs::exists(path("n.gguf")));
}

TEST_F(ConvertTest, NeverOverwritesUnasked) {
  const std::string m = model();
  ASSERT_EQ(convert({m, path("m.gguf")}).code, 0);
  const std::string before = read_all(path("m.gguf"));
  const Finished f = convert({m, path("m.gguf"), "--dtype", "bf16"});
  EXPECT_EQ(f.code, 2);
  EXPECT_THAT(f.err, HasSubstr("--force"));
  EXPECT_EQ(read_all(path("m.gguf")), before);
  EXPECT_EQ(convert({m, path("m.gguf"), "--dtype", "bf16", "--force"}).code, 0);
  EXPECT_NE(read_all(path("m.gguf")), before);

  fs::create_directories(path("out"));
  write("out/tokenizer.json", "mine");
  EXPECT_EQ(convert({m, path("out")}).code, 2);
  EXPECT_THAT(names(path("out")), ElementsAre("tokenizer.json"));
  EXPECT_EQ(read_all(path("out/tokenizer.json")), "mine");
  EXPECT_EQ(convert({m, path("out"), "--force"}).code, 0);
  EXPECT_EQ(logits(path("out")), logits(m));
}

TEST_F(ConvertTest, WrongUsage) {
  const std::string m = any_model("mamba3_siso");
  EXPECT_EQ(convert({m, path("m.gguf"), "--to", "hf"}).code, 2);
  EXPECT_EQ(convert({m, path("out"), "--to", "gguf"}).code, 2);
  EXPECT_THAT(convert({m, path("out"), "--to", "hf"}).err, HasSubstr("no Mamba-3"));
  write("file", "");
  EXPECT_EQ(convert({m, path("file")}).code, 2);
  fs::create_directories(path("folder.gguf"));
  EXPECT_EQ(convert({m, path("folder.gguf")}).code, 2);
}

TEST_F(ConvertTest, ValuesBeyondF16AreRefused) {
  ModelSpec spec = tiny_spec("mamba2");
  ParamStore params = random_params(spec, 1, DType::kF32, pool());
  Tensor table = params.f32(kEmbeddingName);
  table.f32()[5] = 1e6f;
  params.set(kEmbeddingName, {table, false});
  save_folder(spec, params, path("big"), CheckpointForm::kAuto);
  const Finished f = convert({path("big"), path("big.gguf"), "--dtype", "f16"});
  EXPECT_EQ(f.code, 3);
  EXPECT_THAT(f.err, HasSubstr("1 values of backbone.embedding.weight leave the range of f16"));
  EXPECT_FALSE(fs::exists(path("big.gguf")));
}

// A disk that is full, here a limit on the size of files.
TEST_F(ConvertTest, FailedWritesLeaveNothingBehind) {
  const std::string m = model();
  const auto full_disk = [] {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    setrlimit(RLIMIT_FSIZE, &limit);
  };
  const auto before = names(folder_);
  for (const char* out : {"m.gguf", "out"}) {
    const Finished f = Child({"convert", m, path(out)}, "", "", full_disk).wait();
    EXPECT_EQ(f.code, 1) << out << ": " << f.err;
    EXPECT_EQ(names(folder_), before) << out;
  }
}

}  // namespace
}  // namespace krait::test
