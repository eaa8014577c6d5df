#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "krait/core/error.h"
#include "krait/core/rng.h"
#include "krait/text/byte_chars.h"
#include "krait/text/factories.h"
#include "krait/text/utf8.h"
#include "krait/text/utf8_stream.h"

namespace krait::text {
namespace {

using Ids = std::vector<int32_t>;
using testing::HasSubstr;

std::string json_string(const std::string& s) {
  std::string out = "\"";
  for (const char c : s) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

// All bytes (id = byte), then "th", "the", "Ġthe" as 256, 257, 258; <s> </s> <|im_end|> as 259, 260, 261.
constexpr const char* kMerges = R"([["t","h"],"th e",["Ġ","the"]])";
constexpr const char* kByteLevel =
    R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true})";

std::string document(const std::string& stages, const std::string& model_fields = "",
                     const std::string& extra_tokens = "") {
  std::string vocab;
  for (int b = 0; b < 256; ++b) {
    std::string chars;
    const char byte = static_cast<char>(b);
    append_byte_chars(chars, {&byte, 1});
    vocab += json_string(chars) + ":" + std::to_string(b) + ",";
  }
  vocab += R"("th":256,"the":257,"Ġthe":258)";
  const auto added = [](const char* text, int id) {
    return R"({"id":)" + std::to_string(id) + R"(,"content":")" + text +
           R"(","special":true,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false})";
  };
  return R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)" + added("<s>", 259) + "," +
         added("</s>", 260) + "," + added("<|im_end|>", 261) + extra_tokens + "]," + stages +
         R"("model":{"type":"BPE",)" + model_fields + R"("vocab":{)" + vocab + R"(},"merges":)" + kMerges + "}}";
}

std::string byte_level_document() {
  return document(std::string(R"("normalizer":null,"post_processor":null,"pre_tokenizer":)") + kByteLevel +
                  ",\"decoder\":" + kByteLevel + ",");
}

std::unique_ptr<Tokenizer> open(const std::string& json, const SideFiles& side = {}) {
  return make_json_tokenizer(json, "test", side);
}

std::string message(const std::string& json, const SideFiles& side = {}) {
  try {
    open(json, side);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadData);
    return e.what();
  }
  return "no error";
}

TEST(JsonTokenizer, ByteLevelBothWays) {
  const auto t = open(byte_level_document());
  EXPECT_EQ(t->vocab_size(), 262);
  EXPECT_EQ(t->encode("the the\n"), (Ids{257, 258, '\n'}));
  EXPECT_EQ(t->encode("thé"), (Ids{256, 0xC3, 0xA9}));
  EXPECT_EQ(t->decode(Ids{258, 0xC3, 0xA9, 0xE2, 0x82}, false), " theé\ufffd");
  EXPECT_EQ(t->token_bytes(258), " the");
  EXPECT_EQ(t->token_bytes(0xC3), "\xC3");
  EXPECT_EQ(t->token_bytes(400), "");
  EXPECT_EQ(t->token_id("Ġthe"), 258);
  EXPECT_EQ(t->token_id("nothing"), std::nullopt);
  EXPECT_THROW(t->decode(Ids{262}, false), Error);
  EXPECT_THROW(t->decode(Ids{-1}, false), Error);
}

TEST(JsonTokenizer, SpecialTokens) {
  const auto t = open(byte_level_document());
  EXPECT_EQ(t->encode("a<s>the</s>"), (Ids{'a', 259, 257, 260}));
  EXPECT_EQ(t->encode("<s>", {.parse_special = false}), (Ids{'<', 's', '>'}));
  EXPECT_TRUE(t->is_special(259));
  EXPECT_FALSE(t->is_special(257));
  EXPECT_EQ(t->decode(Ids{259, 'a', 260}, true), "a");
  EXPECT_EQ(t->decode(Ids{259, 'a', 260}, false), "<s>a</s>");
  EXPECT_EQ(t->bos_id(), 259);
}

TEST(JsonTokenizer, InvalidUtf8BecomesReplacementCharacters) {
  const auto t = open(byte_level_document());
  EXPECT_EQ(t->encode("a\xE2\x82z\xFF"), t->encode("a\ufffdz\ufffd"));
  EXPECT_EQ(t->encode(""), Ids{});
}

TEST(JsonTokenizer, StreamedBytesEqualDecode) {
  const auto t = open(byte_level_document());
  Rng rng(5);
  for (int round = 0; round < 200; ++round) {
    Ids ids;
    for (uint64_t n = rng.below(60); n > 0; --n) ids.push_back(static_cast<int32_t>(rng.below(262)));
    Utf8Stream stream;
    std::string text;
    for (size_t i = 0; i < ids.size(); ++i) {
      const std::string part = stream.push(t->token_bytes(ids[i], i == 0));
      ASSERT_TRUE(is_valid_utf8(part));
      text += part;
    }
    ASSERT_EQ(text + stream.finish(), t->decode(ids, false)) << "round " << round;
  }
}

TEST(JsonTokenizer, ThreadsEncodeAtOnce) {
  const auto t = open(byte_level_document());
  std::string text;
  for (int i = 0; i < 2000; ++i) text += " the th" + std::to_string(i);
  const Ids want = t->encode(text);
  std::vector<Ids> got(4);
  {
    std::vector<std::jthread> threads;
    for (Ids& out : got) threads.emplace_back([&] { out = t->encode(text); });
  }
  for (const Ids& ids : got) EXPECT_EQ(ids, want);
}

TEST(JsonTokenizer, TemplateAddsWhatTheModelWants) {
  const std::string stages = std::string(R"("pre_tokenizer":)") + kByteLevel + ",\"decoder\":" + kByteLevel +
                             R"(,"post_processor":{"type":"Sequence","processors":[)" + kByteLevel +
                             R"(,{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},
    {"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"</s>","type_id":0}}],"pair":[],
    "special_tokens":{"<s>":{"id":"<s>","ids":[259],"tokens":["<s>"]},
    "</s>":{"id":"</s>","ids":[260],"tokens":["</s>"]}}}]},)";
  const auto t = open(document(stages));
  EXPECT_EQ(t->encode("the"), (Ids{259, 257, 260}));
  EXPECT_EQ(t->encode("the", {.add_special = false}), (Ids{257}));
  EXPECT_EQ(t->encode(""), (Ids{259, 260}));
}

TEST(JsonTokenizer, NormalizersRunInOrderAndNotOverRawTokens) {
  const std::string stages = std::string(R"("normalizer":{"type":"Sequence","normalizers":[{"type":"Lowercase"},
    {"type":"Replace","pattern":{"String":"x"},"content":"th"},{"type":"Prepend","prepend":" "}]},"pre_tokenizer":)") +
                             kByteLevel + ",\"decoder\":" + kByteLevel + ",";
  const auto t = open(document(stages));
  EXPECT_EQ(t->encode("Xe<s>X"), (Ids{258, 259, ' ', 256}));
}

TEST(JsonTokenizer, SentencePieceStyleDecoderDropsTheFirstSpaceOnly) {
  const std::string stages = R"("pre_tokenizer":null,"decoder":{"type":"Sequence","decoders":[
    {"type":"Replace","pattern":{"String":"Ġ"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},
    {"type":"Strip","content":" ","start":1,"stop":0}]},)";
  const auto t = open(document(stages, "", R"(,{"id":262,"content":"<0xE9>","special":false})"));
  EXPECT_EQ(t->decode(Ids{258, 258}, false), "the the");
  EXPECT_EQ(t->token_bytes(258, false), " the");
  EXPECT_EQ(t->token_bytes(262), "\xE9");
}

TEST(JsonTokenizer, WithoutDecoderTokensAreSpaced) {
  const auto t = open(document(R"("decoder":null,)"));
  EXPECT_EQ(t->decode(Ids{'a', 'b'}, false), "a b");
}

TEST(JsonTokenizer, RefusesWhatItDoesNotKnowByName) {
  const auto with = [](const std::string& stages, const std::string& model = "") {
    return message(document(stages, model));
  };
  EXPECT_THAT(with(R"("normalizer":{"type":"Nmt"},)"), HasSubstr("'Nmt'"));
  EXPECT_THAT(with(R"("pre_tokenizer":{"type":"UnicodeScripts"},)"), HasSubstr("'UnicodeScripts'"));
  EXPECT_THAT(with(R"("decoder":{"type":"CTC"},)"), HasSubstr("'CTC'"));
  EXPECT_THAT(with(R"("decoder":{"type":"Strip","content":" ","start":0,"stop":1},)"), HasSubstr("Strip"));
  EXPECT_THAT(with(R"("post_processor":{"type":"BertProcessing"},)"), HasSubstr("'BertProcessing'"));
  EXPECT_THAT(with(R"("normalizer":{"type":"NFC","strength":2},)"), HasSubstr("'strength'"));
  EXPECT_THAT(with(R"("pre_tokenizer":{"type":"Metaspace","replacement":""},)"), HasSubstr("one character"));
  EXPECT_THAT(with(R"("decoder":{"type":"Metaspace","replacement":"ab"},)"), HasSubstr("one character"));
  EXPECT_THAT(with(R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"*"},)"), HasSubstr("base64"));
  EXPECT_THAT(with(R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}},
      {"Sequence":{"id":"A"}}],"special_tokens":{"x":{"ids":[900]}}},)"),
              HasSubstr("900"));
  EXPECT_THAT(with(R"("novelty":1,)"), HasSubstr("'novelty'"));
  EXPECT_THAT(with("", R"("continuing_subword_prefix":"##",)"), HasSubstr("continuing_subword_prefix"));
  EXPECT_THAT(with("", R"("dropout":0.1,)"), HasSubstr("dropout"));
  EXPECT_THAT(with(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"["},"behavior":"Isolated","invert":false},)"),
              HasSubstr("'['"));
}

TEST(JsonTokenizer, RefusesMalformedDocuments) {
  EXPECT_THAT(message("{"), HasSubstr("not JSON"));
  EXPECT_THAT(message("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(message("{}"), HasSubstr("'model' is missing"));
  EXPECT_THAT(message(R"({"model":{"type":"WordPiece","vocab":{}}})"), HasSubstr("'WordPiece'"));
  EXPECT_THAT(message(R"({"model":{"type":"BPE","vocab":{"a":0,"b":0},"merges":[]}})"), HasSubstr("two tokens"));
  EXPECT_THAT(message(R"({"model":{"type":"BPE","vocab":{"a":0,"a":1},"merges":[]}})"), HasSubstr("twice"));
  EXPECT_THAT(message(R"({"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}})"), HasSubstr("-1"));
  EXPECT_THAT(message(R"({"model":{"type":"BPE","vocab":{"a":99999999999},"merges":[]}})"), HasSubstr("99999999999"));
  EXPECT_THAT(message(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a b c"]}})"), HasSubstr("a b c"));
  EXPECT_THAT(
      message(R"({"added_tokens":[{"id":0,"content":"x"}],"model":{"type":"BPE","vocab":{"a":0},"merges":[]}})"),
      HasSubstr("'a'"));
  EXPECT_THAT(message(std::string(5000, '[')), HasSubstr("not JSON"));
}

TEST(JsonTokenizer, TrapC10_EveryEndOfTextOrTurn) {
  EXPECT_THAT(open(byte_level_document())->eos_ids(), testing::UnorderedElementsAre(260, 261));  // </s>, <|im_end|>
  SideFiles side;
  side.eos = {"the"};
  side.eos_ids = {7, 261};
  side.bos = "</s>";
  const auto t = open(byte_level_document(), side);
  EXPECT_THAT(t->eos_ids(), testing::UnorderedElementsAre(257, 7, 261, 260));
  EXPECT_EQ(t->bos_id(), 260);
  side.eos = {"<nowhere>"};
  EXPECT_THAT(message(byte_level_document(), side), HasSubstr("<nowhere>"));
}

class Folder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              ("krait_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void write(const char* name, const std::string& text) { std::ofstream(folder_ / name, std::ios::binary) << text; }
  std::filesystem::path folder_;
};
using SideFilesTest = Folder;

TEST_F(SideFilesTest, TrapC10_IntegerAndListAndStringAndObject) {
  EXPECT_TRUE(read_side_files(folder_).eos.empty());
  write("generation_config.json", R"({"eos_token_id": 5})");
  EXPECT_EQ(read_side_files(folder_).eos_ids, (Ids{5}));
  write("generation_config.json", R"({"eos_token_id": [5, 9]})");
  write("tokenizer_config.json",
        R"({"eos_token": {"content": "</s>", "lstrip": false}, "bos_token": null, "add_bos_token": true,
      "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})");
  write("special_tokens_map.json", R"({"eos_token": "<end>", "bos_token": "<s>"})");
  const SideFiles side = read_side_files(folder_);
  EXPECT_EQ(side.eos_ids, (Ids{5, 9}));
  EXPECT_EQ(side.eos, (std::vector<std::string>{"</s>", "<end>"}));
  EXPECT_EQ(side.bos, "<s>");
  EXPECT_EQ(side.add_bos, true);
  EXPECT_EQ(side.chat_template, "D");
  write("chat_template.jinja", "J");
  EXPECT_EQ(read_side_files(folder_).chat_template, "J");
  write("generation_config.json", R"({"eos_token_id": "five"})");
  EXPECT_THROW(read_side_files(folder_), Error);
  write("generation_config.json", "{");
  EXPECT_THROW(read_side_files(folder_), Error);
}

TEST_F(SideFilesTest, FoldersAreOpenedByWhatTheyHold) {
  EXPECT_FALSE(has_tokenizer(folder_));
  EXPECT_FALSE(has_tokenizer(folder_ / "absent"));
  EXPECT_THROW(open_tokenizer(folder_), Error);
  write("tokenizer.json", byte_level_document());
  write("tokenizer_config.json", R"({"eos_token": "</s>", "chat_template": "X"})");
  EXPECT_TRUE(has_tokenizer(folder_));
  const auto t = open_tokenizer(folder_);
  EXPECT_EQ(t->chat_template(), "X");
  EXPECT_EQ(t->encode("the"), (Ids{257}));
  EXPECT_EQ(open_tokenizer(folder_ / "tokenizer.json")->encode("the"), (Ids{257}));
  std::filesystem::rename(folder_ / "tokenizer.json", folder_ / "vocabulary");  // by content
  EXPECT_EQ(open_tokenizer(folder_ / "vocabulary")->encode("the"), (Ids{257}));
  write("other", "hello");
  EXPECT_THROW(open_tokenizer(folder_ / "other"), Error);
}

// Ids and text as the tokenizers package 0.23 has them.
TEST(JsonTokenizer, UnigramFixtureAsThePackage) {
  std::ifstream in(std::string(KRAIT_SOURCE_DIR) + "/tests/fixtures/unigram.json");
  const auto t = open({std::istreambuf_iterator<char>(in), {}});
  EXPECT_EQ(t->encode("ab  a caf\u00e9\n <s>b"), (Ids{11, 1, 5, 4, 1, 6, 11, 3}));
  EXPECT_EQ(t->encode("\u00e9 a"), (Ids{11, 1, 8, 9, 4}));
  EXPECT_EQ(t->encode("xyz ab"), (Ids{11, 1, 0, 1, 5}));
  EXPECT_EQ(t->decode(Ids{11, 1, 8, 9, 4}, false), "<s> \u00e9 a");
}

// What the package prints: all of a run of byte tokens is text, or each of them is U+FFFD.
TEST(JsonTokenizer, ByteRunsDecodeAsThePackage) {
  std::ifstream in(std::string(KRAIT_SOURCE_DIR) + "/tests/fixtures/unigram.json");
  const auto t = open({std::istreambuf_iterator<char>(in), {}});
  const std::string bad = "\uFFFD";
  EXPECT_EQ(t->decode(Ids{10}, false), bad);
  EXPECT_EQ(t->decode(Ids{8, 9, 10}, false), bad + bad + bad);
  EXPECT_EQ(t->decode(Ids{8, 4, 9}, false), bad + " a" + bad);
  EXPECT_EQ(t->decode(Ids{9, 2, 8, 9}, false), bad + "a\u00e9");
  EXPECT_EQ(t->decode(Ids{11, 8, 9, 11, 8}, false), "<s>\u00e9<s>" + bad);
  EXPECT_EQ(t->decode(Ids{11, 8, 9, 11, 8}, true), bad + bad + bad);
}

}  // namespace
}  // namespace krait::text
