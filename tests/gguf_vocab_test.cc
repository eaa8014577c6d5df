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

text::GgufVocab spm_vocab(const io::Gguf& g) {
  text::GgufVocab v;
  v.model = g.str("tokenizer.ggml.model");
  v.tokens = g.strings("tokenizer.ggml.tokens");
  v.scores = g.floats("tokenizer.ggml.scores");
  v.types = g.integers32("tokenizer.ggml.token_type");
  v.add_bos = g.boolean("tokenizer.ggml.add_bos_token");
  return v;
}

TEST(GgufVocab, LlamaSpmVectors) {
  const fs::path file = fs::path(KRAIT_SHARED_DIR) / "data/tokenizers/ggml-vocab-llama-spm.gguf";
  if (!fs::exists(file)) GTEST_SKIP() << "needs reference data: " << file;
  const auto t = text::make_gguf_tokenizer(spm_vocab(*io::Gguf::open(file)));
  EXPECT_EQ(t->bos_id(), 1);
  const std::string separator = "\n__ggml_vocab_test__\n";
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
    const auto got = t->encode(input, {.add_special = false});
    EXPECT_EQ(got, want) << "case " << cases << ": " << input;
    EXPECT_EQ(t->decode(got, true), input);
  }
  EXPECT_GT(cases, 40);
}

}  // namespace
}  // namespace krait
