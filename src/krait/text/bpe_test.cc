#include "krait/text/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "krait/core/error.h"
#include "krait/core/rng.h"
#include "krait/text/growth.h"

namespace krait::text {
namespace {

Vocab vocab_of(const std::vector<std::string>& tokens) {
  Vocab v;
  for (size_t i = 0; i < tokens.size(); ++i) v.add(tokens[i], static_cast<int32_t>(i));
  return v;
}

std::vector<int32_t> encode(const PieceModel& m, std::string_view piece) {
  std::vector<int32_t> ids;
  m.encode(piece, ids);
  return ids;
}
using Ids = std::vector<int32_t>;

TEST(Vocab, FindsWhatWasAddedInAnyOrder) {
  Vocab v;
  for (int32_t i = 4999; i >= 0; --i) ASSERT_TRUE(v.add("t" + std::to_string(i), i));
  for (int32_t i = 0; i < 5000; ++i) ASSERT_EQ(v.find("t" + std::to_string(i)), i);
  EXPECT_EQ(v.find("t5000"), -1);
  EXPECT_EQ(v.size(), 5000);
  EXPECT_FALSE(v.add("t7", 6000));
  EXPECT_EQ(v.token(7), "t7");
  EXPECT_EQ(v.token(-1), "");
  EXPECT_EQ(v.token(5000), "");
}

TEST(Bpe, LowestRankFirstThenLeftmost) {
  const auto m = make_bpe(vocab_of({"a", "b", "c", "bc", "ab", "aa"}), {{"b", "c"}, {"a", "b"}, {"a", "a"}}, {});
  EXPECT_EQ(encode(*m, "abc"), (Ids{0, 3}));
  EXPECT_EQ(encode(*m, "aaa"), (Ids{5, 0}));
  EXPECT_EQ(encode(*m, "ab"), (Ids{4}));
  EXPECT_EQ(encode(*m, ""), Ids{});
}

TEST(Bpe, UnknownCharacters) {
  const std::vector<std::string> tokens = {"a", "?", "<0xC3>", "<0xA9>"};
  EXPECT_EQ(encode(*make_bpe(vocab_of(tokens), {}, {}), "axxa"), (Ids{0, 0}));
  EXPECT_EQ(encode(*make_bpe(vocab_of(tokens), {}, {.unk_token = "?"}), "axxa"), (Ids{0, 1, 1, 0}));
  EXPECT_EQ(encode(*make_bpe(vocab_of(tokens), {}, {.unk_token = "?", .fuse_unk = true}), "axxa"), (Ids{0, 1, 0}));
  EXPECT_EQ(encode(*make_bpe(vocab_of(tokens), {}, {.unk_token = "?", .byte_fallback = true}), "é中"), (Ids{2, 3, 1}));
}

TEST(Bpe, IgnoreMergesTakesAWholePiece) {
  const std::vector<std::string> tokens = {"a", "b", "c", "abc"};
  EXPECT_EQ(encode(*make_bpe(vocab_of(tokens), {}, {}), "abc"), (Ids{0, 1, 2}));
  EXPECT_EQ(encode(*make_bpe(vocab_of(tokens), {}, {.unk_token = {}, .ignore_merges = true}), "abc"), (Ids{3}));
}

TEST(Bpe, RefusesMergesOutsideTheVocabulary) {
  EXPECT_THROW(make_bpe(vocab_of({"a", "b"}), {{"a", "b"}}, {}), Error);
  EXPECT_THROW(make_bpe(vocab_of({"a", "ab"}), {{"a", "b"}}, {}), Error);
  EXPECT_THROW(make_bpe(vocab_of({"a"}), {}, {.unk_token = "?"}), Error);
}

// Random merges over three letters; the definition, join by join, against both algorithms (short and long pieces).
TEST(Bpe, EqualsTheDefinition) {
  Rng rng(3);
  for (int round = 0; round < 30; ++round) {
    std::vector<std::string> tokens = {"a", "b", "c"};
    std::vector<std::pair<std::string, std::string>> pairs;
    std::map<std::pair<std::string, std::string>, size_t> ranks;
    while (pairs.size() < 40) {
      const std::string l = tokens[rng.below(tokens.size())], r = tokens[rng.below(tokens.size())];
      if (!ranks.emplace(std::pair(l, r), pairs.size()).second) continue;
      pairs.emplace_back(l, r);
      if (std::ranges::find(tokens, l + r) == tokens.end()) tokens.push_back(l + r);
    }
    const auto model = make_bpe(vocab_of(tokens), Merges(pairs.begin(), pairs.end()), {});
    for (int piece = 0; piece < 60; ++piece) {
      std::string text;
      for (uint64_t n = rng.below(120); n > 0; --n) text += static_cast<char>('a' + rng.below(3));
      std::vector<std::string> symbols;
      for (const char c : text) symbols.emplace_back(1, c);
      while (true) {
        size_t best = SIZE_MAX, at = 0;
        for (size_t i = 0; i + 1 < symbols.size(); ++i) {
          const auto rank = ranks.find({symbols[i], symbols[i + 1]});
          if (rank != ranks.end() && rank->second < best) best = rank->second, at = i;
        }
        if (best == SIZE_MAX) break;
        symbols[at] += symbols[at + 1];
        symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(at) + 1);
      }
      Ids want;
      for (const std::string& s : symbols) want.push_back(model->id(s).value());
      ASSERT_EQ(encode(*model, text), want) << text << " round " << round;
    }
  }
}

TEST(Bpe, AMegabyteInOneWordIsNotQuadratic) {
  std::vector<std::string> tokens = {"a"};
  std::vector<std::pair<std::string, std::string>> pairs;
  for (int i = 0; i < 8; ++i) {
    pairs.emplace_back(tokens.back(), tokens.back());
    tokens.push_back(tokens.back() + tokens.back());
  }
  const auto model = make_bpe(vocab_of(tokens), Merges(pairs.begin(), pairs.end()), {});
  const auto work = [&](size_t n) { EXPECT_EQ(encode(*model, std::string(n, 'a')).size(), n / 256); };
  EXPECT_LT(growth_of_16_times(work, size_t{1} << 16), 64);
}

}  // namespace
}  // namespace krait::text
