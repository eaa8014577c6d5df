#include "krait/text/bpe_trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "krait/core/error.h"
#include "krait/core/rng.h"
#include "krait/text/bpe_learner.h"
#include "krait/text/factories.h"

namespace krait::text {
namespace {

using testing::HasSubstr;

// The definition: after each merge all pairs of all words are counted anew, and one that was merged before is merged at
// once where it has come back.
LearnedBpe learn_slowly(const std::map<std::string, int64_t>& words, int64_t n_tokens, int64_t min_count) {
  LearnedBpe out = learn_bpe({}, {.n_tokens = 256});
  std::vector<std::pair<std::vector<int32_t>, int64_t>> list;
  for (const auto& [word, n] : words) {
    std::vector<int32_t> s;
    for (const char c : word) {
      s.push_back(static_cast<int32_t>(std::ranges::find(out.tokens, std::string(1, c)) - out.tokens.begin()));
    }
    list.emplace_back(s, n);
  }
  const auto apply = [&list](const LearnedMerge& m) {
    for (auto& [s, n] : list) {
      for (size_t i = 0; i + 1 < s.size(); ++i) {
        if (s[i] != m.left || s[i + 1] != m.right) continue;
        s[i] = m.result;
        s.erase(s.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      }
    }
  };
  while (std::ssize(out.tokens) < n_tokens) {
    std::map<std::pair<int32_t, int32_t>, int64_t> counts;
    for (const auto& [s, n] : list) {
      for (size_t i = 0; i + 1 < s.size(); ++i) counts[{s[i], s[i + 1]}] += n;
    }
    const auto old =
        std::ranges::find_if(out.merges, [&](const LearnedMerge& m) { return counts.contains({m.left, m.right}); });
    if (old != out.merges.end()) {
      apply(*old);
      continue;
    }
    const auto best = std::ranges::max_element(counts, {}, [](const auto& c) { return c.second; });  // the first such
    if (best == counts.end() || best->second < min_count) break;
    const auto [left, right] = best->first;
    const std::string text = out.tokens[static_cast<size_t>(left)] + out.tokens[static_cast<size_t>(right)];
    auto result = static_cast<int32_t>(std::ranges::find(out.tokens, text) - out.tokens.begin());
    if (result == std::ssize(out.tokens)) out.tokens.push_back(text);
    out.merges.push_back({left, right, result});
    apply(out.merges.back());
  }
  return out;
}

TEST(LearnBpe, KeepsCountsAsCountingAnewWouldGiveThem) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Rng rng(seed);
    std::map<std::string, int64_t> words;
    const uint64_t letters = 2 + rng.below(5);
    for (int i = 0; i < 40; ++i) {
      std::string word;
      for (uint64_t n = 1 + rng.below(12); n > 0; --n) word += static_cast<char>('a' + rng.below(letters));
      words[word] = 1 + static_cast<int64_t>(rng.below(5));
    }
    PieceCounts counts;
    for (const auto& [word, n] : words) counts.add(word, n);
    const LearnedBpe fast = learn_bpe(counts, {.n_tokens = 256 + 60, .min_count = 2});
    const LearnedBpe slow = learn_slowly(words, 256 + 60, 2);
    ASSERT_EQ(fast.tokens, slow.tokens) << "seed " << seed;
    ASSERT_EQ(fast.merges.size(), slow.merges.size()) << "seed " << seed;
    for (size_t i = 0; i < fast.merges.size(); ++i) {
      EXPECT_EQ(fast.merges[i].left, slow.merges[i].left) << "seed " << seed << " merge " << i;
      EXPECT_EQ(fast.merges[i].right, slow.merges[i].right) << "seed " << seed << " merge " << i;
    }
  }
}

TEST(LearnBpe, TiesGoToTheSmallerPairAndRarePairsStay) {
  PieceCounts counts;
  for (const char* word : {"cd", "ab", "ac"}) counts.add(word, 3);
  counts.add("xy", 1);
  const LearnedBpe bpe = learn_bpe(counts, {.n_tokens = 1000, .min_count = 2});
  EXPECT_EQ(std::vector(bpe.tokens.begin() + 256, bpe.tokens.end()), (std::vector<std::string>{"ab", "ac", "cd"}));
  EXPECT_EQ(bpe.tokens[0], "!");  // bytes in the order of the characters they are written as
  EXPECT_EQ(bpe.tokens[255], "\xAD");
}

std::vector<std::string> some_texts() {
  std::vector<std::string> texts;
  const std::vector<std::string> words{"the ",
                                       "state ",
                                       "of ",
                                       "a ",
                                       "model",
                                       "s ",
                                       "don't ",
                                       "1984 ",
                                       "\n\n",
                                       "caf\xC3\xA9 ",
                                       "\xE6\x97\xA5\xE6\x9C\xAC ",
                                       "...",
                                       "  ",
                                       "Isn't",
                                       "e\xCC\x81"};
  Rng rng(3);
  for (int i = 0; i < 20; ++i) {
    std::string& text = texts.emplace_back();
    for (int w = 0; w < 400; ++w) text += words[rng.below(words.size())];
  }
  return texts;
}

std::string train(const BpeTrainerOptions& options, const std::vector<std::string>& texts, int threads) {
  ThreadPool pool(threads);
  BpeTrainer trainer(options, pool);
  trainer.add(texts);
  return trainer.finish().json;
}

TEST(BpeTrainer, WritesATokenizerThatGivesTextsBack) {
  const auto texts = some_texts();
  for (const char* pattern : {"gpt2", "llama3", "qwen2"}) {
    for (const bool nfc : {false, true}) {
      const BpeTrainerOptions options{
          .vocab_size = 320, .special = {"<|endoftext|>", "<|im_\"start\\|>"}, .pattern = pattern, .nfc = nfc};
      const auto t = make_json_tokenizer(train(options, texts, 2), "trained", SideFiles{});
      EXPECT_EQ(t->vocab_size(), 320);
      EXPECT_EQ(t->token_id("<|endoftext|>"), 0);
      EXPECT_EQ(t->token_id("<|im_\"start\\|>"), 1);
      EXPECT_EQ(t->token_id("!"), 2);
      EXPECT_THAT(t->eos_ids(), testing::ElementsAre(0));
      for (const std::string& text : texts) {
        const auto ids = t->encode(text);
        EXPECT_LT(ids.size(), text.size() / 2);
        if (!nfc) {
          EXPECT_EQ(t->decode(ids, false), text);
        }
      }
    }
  }
}

TEST(BpeTrainer, DependsNeitherOnThreadsNorOnTheOrderOfTexts) {
  auto texts = some_texts();
  const BpeTrainerOptions options{.vocab_size = 330};
  const std::string one = train(options, texts, 1);
  std::ranges::reverse(texts);
  EXPECT_EQ(train(options, texts, 3), one);
}

TEST(BpeTrainer, CutsTextsWhereNoPieceIs) {
  std::string text;
  for (const std::string& t : some_texts()) text += t;
  for (const auto pattern : {patterns::kGpt2, patterns::kLlama3, patterns::kQwen2, patterns::kTekken}) {
    const PieceEnd end = known_pattern(pattern);
    std::vector<bool> begins(text.size() + 1);
    for (size_t i = 0; i < text.size(); i = end(text, i)) begins[i] = true;
    begins[text.size()] = true;
    for (size_t at = 0; at < text.size(); at += 7) {
      const size_t cut = safe_cut(text, at);
      ASSERT_GT(cut, 0u);
      ASSERT_TRUE(begins[cut]) << cut;
      // The part before the cut is split as if the text went on.
      const std::string_view head = std::string_view(text).substr(0, cut);
      size_t last = cut;
      while (last > 0 && !begins[last - 1]) --last;
      EXPECT_EQ(end(head, last - 1), cut);
    }
  }
}

TEST(BpeTrainer, WrongOptionsAreNamed) {
  ThreadPool pool(1);
  const auto usage = [&pool](const BpeTrainerOptions& options) -> std::string {
    try {
      const BpeTrainer trainer(options, pool);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUsage);
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(usage({.vocab_size = 256}), HasSubstr("wanted are 257"));
  EXPECT_THAT(usage({.min_count = 0}), HasSubstr("at least 0 times"));
  EXPECT_THAT(usage({.special = {"x"}}), HasSubstr("special token 'x'"));
  EXPECT_THAT(usage({.special = {"<a>", "<a>"}}), HasSubstr("each token once"));
  EXPECT_THAT(usage({.pattern = "gpt3"}), HasSubstr("not one of gpt2, llama3, qwen2"));
  BpeTrainer empty({}, pool);
  EXPECT_THROW(empty.finish(), Error);
  BpeTrainer clash({.special = {"the"}}, pool);
  clash.add({"the the the"});
  EXPECT_THROW(clash.finish(), Error);
}

}  // namespace
}  // namespace krait::text
