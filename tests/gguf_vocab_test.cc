// Vocabularies inside GGUF files, against the vectors that come with them.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "krait/io/gguf.h"
#include "krait/text/tokenizer.h"

namespace krait {
namespace {

namespace fs = std::filesystem;

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

text::GgufVocab vocab_of(const io::Gguf& g) {
  text::GgufVocab v;
  v.model = g.str("tokenizer.ggml.model");
  v.pre = g.str_or("tokenizer.ggml.pre", "");
  v.tokens = g.strings("tokenizer.ggml.tokens");
  if (g.has("tokenizer.ggml.scores")) v.scores = g.floats("tokenizer.ggml.scores");
  if (g.has("tokenizer.ggml.token_type")) v.types = g.integers32("tokenizer.ggml.token_type");
  if (g.has("tokenizer.ggml.merges")) v.merges = g.strings("tokenizer.ggml.merges");
  if (g.has("tokenizer.ggml.bos_token_id")) v.bos = static_cast<int32_t>(g.integer("tokenizer.ggml.bos_token_id"));
  if (g.has("tokenizer.ggml.eos_token_id")) v.eos = static_cast<int32_t>(g.integer("tokenizer.ggml.eos_token_id"));
  if (g.has("tokenizer.ggml.add_bos_token")) v.add_bos = g.boolean("tokenizer.ggml.add_bos_token");
  return v;
}

const fs::path kFolder = fs::path(KRAIT_SHARED_DIR) / "data/tokenizers";

std::unique_ptr<text::Tokenizer> open(const std::string& vocab) {
  return text::make_gguf_tokenizer(vocab_of(*io::Gguf::open(kFolder / ("ggml-vocab-" + vocab + ".gguf"))));
}

// Encodes and decodes every case of the vectors named `vectors`.
void check_vectors(const text::Tokenizer& t, const std::string& vectors) {
  const std::string separator = "\n__ggml_vocab_test__\n";
  const fs::path file = kFolder / ("ggml-vocab-" + vectors + ".gguf");
  std::string inputs = read_file(file.string() + ".inp");
  std::istringstream expected(read_file(file.string() + ".out"));
  int cases = 0;
  for (std::string line; std::getline(expected, line); ++cases) {
    const size_t end = inputs.find(separator);
    const std::string input = inputs.substr(0, end);
    inputs.erase(0, end == inputs.npos ? end : end + separator.size());
    std::istringstream numbers(line);
    std::vector<int32_t> want;
    for (int32_t id; numbers >> id;) want.push_back(id);
    const auto got = t.encode(input, {.add_special = false});
    EXPECT_EQ(got, want) << "case " << cases << ": " << input;
    EXPECT_EQ(t.decode(got, true), input);
  }
  EXPECT_GT(cases, 40);
}

class GgufVocab : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(kFolder)) GTEST_SKIP() << "needs reference data: " << kFolder;
  }
};

TEST_F(GgufVocab, LlamaSpmVectors) {
  const auto t = open("llama-spm");
  EXPECT_EQ(t->bos_id(), 1);
  check_vectors(*t, "llama-spm");
}

TEST_F(GgufVocab, Gpt2Vectors) { check_vectors(*open("gpt-2"), "gpt-2"); }
TEST_F(GgufVocab, MptVectors) { check_vectors(*open("mpt"), "mpt"); }

// Their vocabulary is that of the published tokenizer.json, which normalizes to NFC besides.
TEST_F(GgufVocab, GptNeoxHasTheVocabularyOfMpt) {
  const auto neox = open("gpt-neox"), mpt = open("mpt");
  const auto json = text::open_tokenizer(kFolder / "gpt-neox-20b-tokenizer.json");
  check_vectors(*json, "mpt");
  for (const char* s : {"It was a dark and stormy night;", "don't  x\n\n 3.14", "na\u00efve \u4e2d\u6587 \U0001F600"}) {
    EXPECT_EQ(mpt->encode(s, {.add_special = false}), json->encode(s));
    EXPECT_EQ(json->decode(json->encode(s), false), s);
    EXPECT_EQ(neox->decode(neox->encode(s, {.add_special = false}), false), s);
  }
  EXPECT_EQ(json->bos_id(), 0);
  EXPECT_EQ(json->eos_ids(), (std::vector<int32_t>{0}));
}

}  // namespace
}  // namespace krait
