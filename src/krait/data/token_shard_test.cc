#include "krait/data/token_shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <fstream>

#include "krait/data/corpus.h"
#include "krait/data/shard_format.h"
#include "krait/data/test_corpus.h"

namespace krait::data {
namespace {

using testing::HasSubstr;

std::vector<int32_t> ids_of(const TokenShard& s) {
  std::vector<int32_t> ids(static_cast<size_t>(s.n_tokens()));
  s.read_ids(0, ids);
  return ids;
}

TEST(TokenShard, KeepsDocumentsIdsAndMaskInBothWidths) {
  for (const int64_t vocab : {300, 65536, 65537, 200000}) {
    const TestCorpus c({5, 1, 900, 2}, vocab, 1 << 20, true);
    const TokenShard s(c.folder / "shard-00000.ktok");
    EXPECT_EQ(s.vocab_size(), vocab);
    EXPECT_EQ(s.tokenizer_hash(), 7u);
    EXPECT_EQ(s.n_documents(), 4);
    EXPECT_EQ(ids_of(s), c.joined());
    ASSERT_TRUE(s.has_mask());
    for (int64_t d = 0; d < 4; ++d) {
      const auto& flags = c.learned[static_cast<size_t>(d)];
      std::vector<float> weights(flags.size());
      s.read_weights(s.document_begin(d), weights);
      for (size_t i = 0; i < flags.size(); ++i) EXPECT_EQ(weights[i], flags[i] != 0 ? 1.0f : 0.0f);
    }
    EXPECT_EQ(std::filesystem::file_size(s.path()),
              shard_layout({.id_bits = vocab > 65536 ? 32u : 16u, .n_tokens = 908, .n_documents = 4, .flags = 1}).end);
  }
}

// Written by tests/make_fixtures.py from docs/formats.md.
TEST(TokenShard, ReadsWhatTheDocumentedFormatSays) {
  const TokenShard s(std::string(KRAIT_SOURCE_DIR) + "/tests/fixtures/tokens.ktok");
  EXPECT_THAT(ids_of(s), testing::ElementsAre(1, 2, 3, 300, 5));
  EXPECT_EQ(s.n_documents(), 2);
  EXPECT_EQ(s.document_begin(1), 3);
  EXPECT_EQ(s.vocab_size(), 301);
  EXPECT_EQ(s.tokenizer_hash(), 0x1234u);
  std::vector<float> weights(5);
  s.read_weights(0, weights);
  EXPECT_THAT(weights, testing::ElementsAre(1, 0, 1, 1, 0));
}

TEST(TokenShard, DocumentsAreNeverDivided) {
  const TestCorpus c({40, 40, 40, 300, 1}, 1000, 100);
  const Corpus corpus({c.place()});
  std::vector<int64_t> sizes;
  for (const TokenShard& s : corpus.shards()) sizes.push_back(s.n_tokens());
  EXPECT_THAT(sizes, testing::ElementsAre(80, 40, 300, 1));
  EXPECT_FALSE(corpus.shards()[0].has_mask());
}

// A shard with one thing changed and, where `seal`, its checksums made to agree.
std::filesystem::path changed(const TestCorpus& c, const std::function<void(std::string&)>& change, bool seal) {
  std::string bytes = io::read_text(c.folder / "shard-00000.ktok");
  change(bytes);
  ShardHeader h;
  if (seal && bytes.size() >= sizeof h) {
    std::memcpy(&h, bytes.data(), sizeof h);
    h.payload_checksum = XXH3_64bits(bytes.data() + sizeof h, bytes.size() - sizeof h);
    h.header_checksum = XXH3_64bits(&h, offsetof(ShardHeader, header_checksum));
    std::memcpy(bytes.data(), &h, sizeof h);
  }
  return c.folder.write("changed.bin", bytes);
}

template <class T>
auto put(size_t at, T value) {
  return [at, value](std::string& bytes) { std::memcpy(bytes.data() + at, &value, sizeof value); };
}

TEST(TokenShard, WhatIsWrongWithAFileIsSaid) {
  const TestCorpus c({10, 20}, 100, 1 << 20);
  struct Case {
    std::function<void(std::string&)> change;
    bool seal;
    const char* message;
  };
  const std::vector<Case> cases{
      {[](std::string& b) { b = "text"; }, false, "no file of token ids"},
      {[](std::string& b) { b.resize(100); }, false, "truncated: 100 bytes"},
      {[](std::string& b) { b.pop_back(); }, true, "truncated"},
      {[](std::string& b) { b += 'x'; }, true, "too long"},
      {[](std::string& b) { b.back() ^= 1; }, false, "corrupt: its checksum is"},
      {put<uint64_t>(16, 29), false, "the header is corrupt"},
      {put<uint32_t>(8, 2), true, "version 2, this program reads 1"},
      {put<uint32_t>(12, 8), true, "ids of 8 bits"},
      {put<uint64_t>(48, 2), true, "flags 0x2"},
      {put<uint64_t>(32, 29), true, "token 29 has id 29, the vocabulary has 29"},
      {put<uint64_t>(16, ~0ull), true, "tokens in 2 documents"},
      {put<uint64_t>(24, 31), true, "31 documents"},
      {put<uint64_t>(128, 1), true, "the documents go from token 1"},
      {put<uint64_t>(136, 0), true, "document 0 of 2 goes from token 0 to 0"},
      {put<uint64_t>(136, 31), true, "goes from token 0 to 31"},
      {put<uint64_t>(144, 29), true, "to 29, there are 30"},
  };
  for (const Case& one : cases) {
    const auto file = changed(c, one.change, one.seal);
    EXPECT_THAT(io::bad_data([&] { TokenShard{file}; }), HasSubstr(one.message));
  }
  const TokenShard unread(changed(c, put<uint64_t>(32, 29), true), Verify::kStructure);
  EXPECT_THAT(io::bad_data([&] { ids_of(unread); }), HasSubstr("token 29 has id 29"));
}

TEST(ShardWriter, RefusesIdsOutsideTheVocabularyAndFoldersInUse) {
  const TestCorpus c({10}, 100, 1 << 20);
  EXPECT_THAT(io::message_of(ErrorCode::kFailed, [&] { ShardWriter(c.folder.path(), {.vocab_size = 100}); }),
              HasSubstr("has shards already"));
  ShardWriter writer(c.folder / "other", {.vocab_size = 100});
  EXPECT_THROW(writer.add(std::vector<int32_t>{100}), Error);
  EXPECT_THROW(writer.add(std::vector<int32_t>{-1}), Error);
}

TEST(Corpus, JoinsFilesFoldersAndPatterns) {
  const TestCorpus c({40, 40, 40, 300, 1}, 1000, 100), d({9}, 1000, 100), e({7}, 1000, 100);
  const Corpus corpus({c.place(), (d.folder / "shard-0000?.ktok").string(), (e.folder / "shard-00000.ktok").string()});
  std::vector<int32_t> wanted = c.joined();
  for (const TestCorpus* one : {&d, &e}) {
    wanted.insert(wanted.end(), one->documents[0].begin(), one->documents[0].end());
  }
  std::vector<int32_t> ids(static_cast<size_t>(corpus.n_tokens()));
  corpus.read_ids(0, ids);
  EXPECT_EQ(ids, wanted);
  EXPECT_EQ(corpus.n_documents(), 7);
  for (int64_t first = 0; first < corpus.n_tokens(); first += 13) {
    std::vector<int32_t> part(static_cast<size_t>(std::min<int64_t>(150, corpus.n_tokens() - first)));
    corpus.read_ids(first, part);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), wanted.begin() + first)) << first;
  }
  EXPECT_NE(corpus.fingerprint(), Corpus({c.place()}).fingerprint());
  const std::string other_name = (c.folder / "." / "*.ktok").string();
  EXPECT_THAT(io::bad_data([&] { Corpus({c.place(), other_name}); }), HasSubstr("is named twice"));
}

TEST(Corpus, OfNothingOrOfSeveralTokenizersIsRefused) {
  const TestCorpus c({40}, 1000, 100), d({40}, 1001, 100);
  const io::TestFolder empty;
  EXPECT_THAT(io::bad_data([&] { Corpus({c.place(), d.place()}); }), HasSubstr("different tokenizers"));
  EXPECT_THAT(io::bad_data([&] { Corpus({empty.path().string()}); }), HasSubstr("there are no shards"));
  EXPECT_THAT(io::bad_data([&] { Corpus({(empty / "*.ktok").string()}); }), HasSubstr("there are no shards"));
}

}  // namespace
}  // namespace krait::data
