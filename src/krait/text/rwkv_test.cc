#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "krait/core/error.h"
#include "krait/text/factories.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;

// All single bytes as ids 1..256, then `more`.
std::string vocabulary(const std::string& more) {
  std::string out;
  char line[32];
  for (unsigned b = 0; b < 256; ++b) {
    std::snprintf(line, sizeof line, "%u %s'\\x%02x' 1\n", b + 1, b < 128 ? "" : "b", b);
    out += line;
  }
  return out + more;
}

std::unique_ptr<Tokenizer> open(const std::string& text, const SideFiles& side = {}) {
  const fs::path file = fs::path(testing::TempDir()) / ("rwkv_vocab_" + std::to_string(::getpid()) + ".txt");
  std::ofstream(file, std::ios::binary) << text;
  auto t = make_rwkv_tokenizer(file, side);
  fs::remove(file);
  return t;
}

TEST(Rwkv, LongestEntryWinsGreedily) {
  const auto t = open(vocabulary("257 'ab' 2\n258 'abcd' 4\n259 'bc' 2\n260 '\\xe9' 2\n262 b\"'\\xff\" 2\r\n"));
  EXPECT_EQ(t->vocab_size(), 263);
  EXPECT_EQ(t->encode("abcdabc"), (Ids{258, 257, 'c' + 1}));
  EXPECT_EQ(t->encode("\xC3\xA9"), Ids{260});
  EXPECT_EQ(t->token_bytes(262), "'\xFF");
  EXPECT_EQ(t->token_bytes(261), "");  // a hole
  EXPECT_EQ(t->eos_ids(), Ids{0});
  EXPECT_FALSE(t->bos_id());
  EXPECT_EQ(t->encode("a<|endoftext|>"), (Ids{'a' + 1, 0}));
  EXPECT_GT(t->encode("<|endoftext|>", {.parse_special = false}).size(), 1u);
  EXPECT_EQ(t->decode(t->encode(std::string("\0\xFF", 2)), true), std::string("\0\xEF\xBF\xBD", 4));
}

TEST(Rwkv, MalformedLinesAreRefused) {
  for (const char* line : {"x 'a' 1", "257 'ab' 3", "257 ab 2", "257 '\\q' 2", "257 '' 0", "257 'ab 2", "1 'ab' 2",
                           "257 'a' 1", "0 'ab' 2", "99999999999 'ab' 2", "257 '\\x4' 1", "257"}) {
    EXPECT_THROW(open(vocabulary(line)), Error) << line;
  }
  EXPECT_THROW(open("1 'a' 1\n"), Error);  // bytes are missing
}

TEST(Rwkv, Gguf) {
  GgufVocab v;
  v.tokens = {"<s>"};
  char text[8];
  for (unsigned b = 0; b < 256; ++b) {
    std::snprintf(text, sizeof text, "\\x%02x", b);
    v.tokens.push_back(text);
  }
  v.tokens.insert(v.tokens.end(), {"\\n\\n", "it\\'s", "[PAD259]"});
  v.types.assign(v.tokens.size(), 1);
  v.types[0] = 3;
  v.types.back() = 5;
  v.bos = v.eos = 0;
  v.eot = 257;
  const auto t = make_gguf_rwkv(v);
  EXPECT_EQ(t->encode("it's\n\n\n"), (Ids{258, 257, 11}));
  EXPECT_EQ(t->eos_ids(), (Ids{0, 257}));
  EXPECT_EQ(t->token_bytes(259), "");
  v.tokens[5] = "\\";
  EXPECT_THROW(make_gguf_rwkv(v), Error);
}

TEST(Rwkv, WorldVocabulary) {
  const fs::path file = fs::path(KRAIT_SHARED_DIR) / "data/tokenizers/rwkv_vocab_v20230424.txt";
  if (!fs::exists(file)) GTEST_SKIP() << "needs reference data: " << file;
  const auto t = make_rwkv_tokenizer(file, {});
  EXPECT_EQ(t->vocab_size(), 65530);
  EXPECT_EQ(t->encode(" memorable memorable"), (Ids{60000, 60000}));
  for (int id = 1; id < 65530; ++id) {
    const std::string bytes = t->token_bytes(id);
    ASSERT_FALSE(bytes.empty()) << id;
    if (!is_valid_utf8(bytes)) continue;
    EXPECT_EQ(t->encode(bytes), Ids{id});
  }
}

}  // namespace
}  // namespace krait::text
