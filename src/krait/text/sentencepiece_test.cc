#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "krait/core/error.h"
#include "krait/text/charsmap.h"
#include "krait/text/factories.h"
#include "krait/text/spm_bpe.h"
#include "krait/text/spm_tokenizer.h"
#include "krait/text/wire_reader.h"

namespace krait::text {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;

const fs::path kFixtures = fs::path(KRAIT_SOURCE_DIR) / "tests/fixtures";
constexpr EncodeOptions kPlain{.add_special = false, .parse_special = false};

std::string from_hex(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return out;
}

// A line: text, ids and decoded text of the sentencepiece package; texts in hexadecimal.
void check_vectors(const std::string& name) {
  const auto t = make_sentencepiece_tokenizer(kFixtures / (name + ".model"), {});
  std::ifstream in(kFixtures / (name + ".tsv"));
  int lines = 0;
  for (std::string line; std::getline(in, line); ++lines) {
    const size_t a = line.find('\t'), b = line.find('\t', a + 1);
    const std::string text = from_hex(line.substr(0, a));
    std::istringstream numbers(line.substr(a + 1, b - a - 1));
    Ids want;
    for (int32_t id; numbers >> id;) want.push_back(id);
    const Ids got = t->encode(text, kPlain);
    EXPECT_EQ(got, want) << text;
    EXPECT_EQ(t->decode(got, false), from_hex(line.substr(b + 1))) << text;
  }
  EXPECT_GT(lines, 40);
}

TEST(SentencePiece, BpeWithByteFallbackAsThePackage) { check_vectors("sentencepiece_bpe"); }
TEST(SentencePiece, UnigramWithCharacterRulesAsThePackage) { check_vectors("sentencepiece_unigram"); }

TEST(SentencePiece, SpecialTokens) {
  const auto t = make_sentencepiece_tokenizer(kFixtures / "sentencepiece_bpe.model", {});
  const int32_t inst = t->token_id("[INST]").value(), end = t->token_id("<|im_end|>").value();
  EXPECT_EQ(t->bos_id(), 1);
  EXPECT_EQ(t->eos_ids(), (Ids{2, end}));
  const Ids ids = t->encode("[INST]");
  EXPECT_EQ(ids, (Ids{1, inst}));
  EXPECT_EQ(t->encode("", kPlain), Ids{});
  for (const int32_t id : t->encode("[INST]<s>", kPlain)) EXPECT_FALSE(t->is_special(id));
  EXPECT_EQ(t->decode(t->encode("a [INST] b"), true), "a   b");  // each part gets its leading space; one is dropped
  EXPECT_EQ(t->token_bytes(-1), "");
  EXPECT_THROW(t->decode(Ids{500}, false), Error);
}

// transformers 4.x: LlamaTokenizer(legacy=False) and the Metaspace of its tokenizer.json put the leading space before a
// text, not before each part between special tokens: a chat template writes the spaces of its turns itself.
TEST(SentencePiece, LeadingSpaceOfChatTurns) {
  const fs::path model = kFixtures / "sentencepiece_bpe.model";
  const auto encode = [&](const SideFiles& side, std::string_view text) {
    return make_sentencepiece_tokenizer(model, side)->encode(text, {.add_special = false});
  };
  const auto whole = [&](std::string_view text) { return encode({}, text); };
  const auto plus = [](Ids a, const Ids& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  };
  const Ids inst = whole("[INST]"), hello = whole("hello");
  SideFiles modern, bare;
  modern.legacy = false;
  bare.add_prefix_space = false;
  EXPECT_EQ(whole("[INST]hello"), plus(inst, hello));
  EXPECT_EQ(encode(modern, "[INST] hello"), plus(inst, hello));
  EXPECT_EQ(encode(modern, "hello[INST]"), plus(hello, inst));
  EXPECT_EQ(whole("[INST] hello"), plus(inst, whole(" hello")));
  EXPECT_EQ(encode(bare, " hello"), hello);
  EXPECT_NE(encode(bare, "hello"), hello);
}

TEST(SentencePiece, ByteRunsDecodeAsThePackage) {
  const auto t = make_sentencepiece_tokenizer(kFixtures / "sentencepiece_bpe.model", {});
  const std::string bad = "\uFFFD";
  EXPECT_EQ(t->decode(Ids{232, 134}, false), bad + bad);
  EXPECT_EQ(t->decode(Ids{200, 174, 232}, false), "\u00e9" + bad);
  EXPECT_EQ(t->decode(Ids{242, 165, 133}, false), bad + bad + bad);
  EXPECT_EQ(t->decode(Ids{232, 134, 200, 174}, false), bad + bad + "\u00e9");
}

TEST(SentencePiece, SideFiles) {
  SideFiles side;
  side.add_bos = false;
  side.add_eos = true;
  side.eos = {"[INST]"};
  side.chat_template = "x";
  const auto t = make_sentencepiece_tokenizer(kFixtures / "sentencepiece_bpe.model", side);
  EXPECT_EQ(t->encode(""), (Ids{t->token_id("[INST]").value()}));
  EXPECT_EQ(t->chat_template(), "x");
  side.eos = {"<nowhere>"};
  EXPECT_THROW(make_sentencepiece_tokenizer(kFixtures / "sentencepiece_bpe.model", side), Error);
}

TEST(SentencePiece, InvalidUtf8IsReplaced) {
  const auto t = make_sentencepiece_tokenizer(kFixtures / "sentencepiece_bpe.model", {});
  EXPECT_EQ(t->encode("a\xFF\xE2\x82z", kPlain), t->encode("a\xEF\xBF\xBD\xEF\xBF\xBDz", kPlain));
}

// Every prefix and every altered byte of a model is either read or refused.
TEST(SentencePiece, TrapC15_DamagedFiles) {
  const std::string file = read_whole_file(kFixtures / "sentencepiece_unigram.model");
  int refused = 0;
  const auto check = [&](std::string_view damaged) {
    try {
      const SpmTokenizer t(parse_spm_model(damaged, "test"), {});
      t.encode("the king \xEF\xAC\x81 \xE2\x80\xA6", {});
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadData);
      ++refused;
    }
  };
  for (size_t n = 0; n < file.size(); n += n < 100 ? 1 : 37) check(std::string_view(file).substr(0, n));
  EXPECT_GT(refused, 50);
  for (size_t i = 0; i < file.size(); i += 13) {
    std::string altered = file;
    altered[i] = static_cast<char>(altered[i] ^ 0x81);
    check(altered);
  }
}

TEST(SentencePiece, AbsurdLengthsAreRefused) {
  for (const std::string bytes : {"\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", "\x0A\x7Fzz", "\x0B", "\x02",
                                  "\x0D\x01", "\x08\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", "\x08\x80"}) {
    WireReader r(bytes, "test");
    EXPECT_THROW(r.next(), Error);
  }
  WireReader r("\x08\x96\x01", "test");
  const auto f = r.next();
  EXPECT_EQ(f->number, 1u);
  EXPECT_EQ(r.integer(*f), 150);
  EXPECT_THROW(r.bytes(*f), Error);
  EXPECT_FALSE(r.next());
}

TEST(SentencePiece, UnsupportedModelsAreRefusedByName) {
  const auto trainer = [](std::string spec) { return std::string("\x12") + static_cast<char>(spec.size()) + spec; };
  for (const auto& [spec, message] : {std::pair(std::string("\x18\x03"), "word"),
                                      {std::string("\x18\x04"), "char"},
                                      {std::string("\xC0\x01\x01"), "treat_whitespace_as_suffix"}}) {
    try {
      parse_spm_model(trainer(spec), "test");
      FAIL() << message;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  }
}

SpmModel small(bool unigram) {
  SpmModel m;
  m.unigram = unigram;
  m.pieces = {
      {"<unk>", 0, PieceType::kUnknown}, {"a", -3}, {"b", -3}, {"ab", -1}, {"abab", -0.5f}, {"\xE2\x96\x81", -2}};
  m.remove_extra_whitespaces = false;
  return m;
}

TEST(SpmBpe, UnusedPiecesAreTakenApart) {
  SpmModel m = small(false);
  EXPECT_EQ(SpmTokenizer(m, {}).encode("ababab"), (Ids{5, 4, 3}));
  m.pieces[4].type = PieceType::kUnused;
  EXPECT_EQ(SpmTokenizer(m, {}).encode("ababab"), (Ids{5, 3, 3, 3}));
}

TEST(SpmBpe, LongInputsTakeLinearithmicTime) {
  const SpmTokenizer t(small(false), {});
  std::string text;
  for (int i = 0; i < 500'000; ++i) text += "ab";
  EXPECT_EQ(t.encode(text).size(), 1 + 250'000u);
}

TEST(Unigram, UnknownRunsAreOneUnlessBytesExist) {
  SpmModel m = small(true);
  EXPECT_EQ(SpmTokenizer(m, {}).encode("xyab"), (Ids{5, 0, 3}));
  for (int b = 0; b < 256; ++b) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", static_cast<unsigned>(b));
    m.pieces.push_back({text, 0, PieceType::kByte});
  }
  m.byte_fallback = true;
  EXPECT_EQ(SpmTokenizer(m, {}).encode("x\xC3\xA9"), (Ids{5, 6 + 'x', 6 + 0xC3, 6 + 0xA9}));
  m.pieces.pop_back();
  EXPECT_THROW(SpmTokenizer(m, {}), Error);
}

TEST(SpmTokenizer, ContradictoryPiecesAreRefused) {
  SpmModel twice = small(false), no_unknown = small(false);
  twice.pieces.push_back({"ab"});
  no_unknown.pieces.erase(no_unknown.pieces.begin());
  EXPECT_THROW(SpmTokenizer(twice, {}), Error);
  EXPECT_THROW(SpmTokenizer(no_unknown, {}), Error);
}

GgufVocab gguf_vocab() {
  GgufVocab v;
  v.model = "llama";
  v.tokens = {"<unk>", "<s>", "</s>", "a", "b", "ab", "\xE2\x96\x81", "<call>"};
  v.scores = {0, 0, 0, -3, -3, -1, -2, 0};
  v.types = {2, 3, 3, 1, 1, 1, 1, 4};
  return v;
}

TEST(GgufSpm, DefaultsAndUserDefinedPiecesCutTexts) {
  const auto t = make_gguf_spm(gguf_vocab());
  EXPECT_EQ(t->encode("ab"), (Ids{1, 6, 5}));
  EXPECT_EQ(t->encode("a<call>b</s>", {.add_special = false}), (Ids{6, 3, 7, 6, 4, 2}));
  EXPECT_EQ(t->eos_ids(), Ids{2});
  GgufVocab v = gguf_vocab();
  v.add_bos = false;
  v.add_eos = true;
  v.add_space_prefix = false;
  EXPECT_EQ(make_gguf_spm(v)->encode("ab"), (Ids{5, 2}));
}

TEST(GgufSpm, Unigram) {
  GgufVocab v = gguf_vocab();
  v.model = "t5";
  v.eos = 2;
  EXPECT_EQ(make_gguf_unigram(v)->encode("  ab  b "), (Ids{6, 5, 6, 4, 2}));
}

TEST(GgufSpm, BadVocabulariesAreRefused) {
  GgufVocab scores = gguf_vocab(), types = gguf_vocab(), bos = gguf_vocab(), nan = gguf_vocab();
  scores.scores.pop_back();
  types.types[3] = 9;
  bos.bos = 8;
  nan.scores[3] = std::nanf("");
  for (const GgufVocab& v : {scores, types, bos, nan}) EXPECT_THROW(make_gguf_spm(v), Error);
}

TEST(JsonUnigram, AsTheTokenizersPackage) {
  const auto m = make_json_unigram({{"<unk>", 0}, {"a", -3}, {"b", -3}, {"ab", -1}, {"xy", -20}}, 0, false);
  Ids ids;
  m->encode("abxzab", ids);
  EXPECT_EQ(ids, (Ids{3, 0, 3}));
  ids.clear();
  make_json_unigram({{"a", -1}, {"<0xC3>", 0}, {"<0xA9>", 0}}, std::nullopt, true)->encode("a\xC3\xA9", ids);
  EXPECT_EQ(ids, (Ids{0, 1, 2}));
  EXPECT_THROW(make_json_unigram({{"a", -1}}, std::nullopt, false)->encode("b", ids), Error);
  EXPECT_THROW(make_json_unigram({{"a", -1}}, 1, false), Error);
}

TEST(Charsmap, Base64) {
  EXPECT_EQ(decode_base64(""), "");
  EXPECT_EQ(decode_base64("AGE="), std::string("\0a", 2));
  EXPECT_EQ(decode_base64("/+8="), "\xFF\xEF");
  EXPECT_EQ(decode_base64("QUJDRA=="), "ABCD");
  for (const char* bad : {"A", "AB=C", "A===", "A BC"}) EXPECT_THROW(decode_base64(bad), Error) << bad;
}

// The rules of the fixture through the normalizer of tokenizer.json, which asks a cluster at a time.
TEST(Charsmap, ByGraphemeCluster) {
  const std::string file = read_whole_file(kFixtures / "sentencepiece_unigram.model");
  const auto normalize = make_charsmap_normalizer(parse_spm_model(file, "test").charsmap);
  EXPECT_EQ(normalize("A\xEF\xAC\x81\xE2\x80\xA6\tz"), "afi... z");
  EXPECT_EQ(normalize("A\xCC\x80"), "a");  // a rule for A alone takes the cluster of two characters
}

TEST(SentencePiece, MistralModel) {
  const fs::path file = fs::path(KRAIT_SHARED_DIR) / "data/tokenizers/mistral_instruct_tokenizer_240323.model.v3";
  if (!fs::exists(file)) GTEST_SKIP() << "needs reference data: " << file;
  const auto t = make_sentencepiece_tokenizer(file, {});
  EXPECT_EQ(t->name(), "SentencePiece BPE with byte fallback");
  EXPECT_EQ(t->vocab_size(), 32768);
  EXPECT_EQ(t->encode("[INST] Hello world[/INST]"), (Ids{1, 3, 29473, 23325, 2294, 4}));
  const std::string text = "\xF0\x9F\xA6\x99 na\xC3\xAFve  \t\xE4\xB8\xAD\xE6\x96\x87\n";
  EXPECT_EQ(t->decode(t->encode(text, kPlain), true), text);
}

}  // namespace
}  // namespace krait::text
