#include "krait/serve/service/prompt.h"

#include <gmock/gmock.h>

#include "krait/core/error.h"

namespace krait::serve {
namespace {

using testing::ElementsAre;
using text::Message;

// A token a character, but for pairs of equal letters, which are one: "aa" is not "a", "a".
class Pairs : public text::Tokenizer {
 public:
  std::string name() const override { return "pairs"; }
  int64_t vocab_size() const override { return 512; }
  std::optional<int32_t> bos_id() const override { return std::nullopt; }
  std::vector<int32_t> eos_ids() const override { return {}; }
  std::string chat_template() const override { return ""; }
  std::vector<int32_t> encode(std::string_view text, text::EncodeOptions) const override {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < text.size(); ++i) {
      const bool pair = i + 1 < text.size() && text[i] == text[i + 1];
      ids.push_back(static_cast<unsigned char>(text[i]) + (pair ? 256 : 0));
      if (pair) ++i;
    }
    return ids;
  }
  std::string token_bytes(int32_t, bool) const override { return ""; }
  bool is_special(int32_t) const override { return false; }
  std::optional<int32_t> token_id(std::string_view) const override { return std::nullopt; }
};

std::unique_ptr<text::ChatTemplate> chat(const std::string& name) {
  return text::named_chat_template(name, "<s>", "</s>");
}

// The text with "|" where it is cut.
std::string shown(const ChatText& t) {
  std::string s = t.text;
  for (auto c = t.cuts.rbegin(); c != t.cuts.rend(); ++c) s.insert(s.begin() + static_cast<int64_t>(*c), 1, '|');
  return s;
}

const std::vector<Message> kTalk = {{"system", "Be kind."}, {"user", "Hi"}, {"assistant", "Yes?"}, {"user", "Go"}};

TEST(RenderChat, CutsWhereAnswersBeginAndEnd) {
  EXPECT_EQ(shown(render_chat(*chat("chatml"), kTalk)),
            "<|im_start|>system\nBe kind.|<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n|Yes?|"
            "<|im_end|>\n<|im_start|>user\nGo<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(shown(render_chat(*chat("falcon"), kTalk)),
            "System: Be kind.|\n\nUser: Hi\n\nAssistant:| Yes?|\n\nUser: Go\n\nAssistant:")
      << "before the space: that is where the model went on";
  EXPECT_EQ(shown(render_chat(*chat("mistral"), kTalk)),
            "<s>[INST] Be kind.|\n\nHi [/INST]| Yes?|</s>[INST] Go [/INST]");
}

TEST(RenderChat, ATemplateThatTrimsOrDropsIsCutAllTheSame) {
  std::vector<Message> talk = kTalk;
  talk[2].content = "\n Yes? \n";
  EXPECT_EQ(render_chat(*chat("llama3"), talk).cuts, render_chat(*chat("llama3"), kTalk).cuts);
  EXPECT_EQ(shown(render_chat(*chat("chatml"), talk)).find("|\n Yes? \n|"),
            shown(render_chat(*chat("chatml"), kTalk)).find("|Yes?|"));
  const auto forgets = text::compile_chat_template(  // what was thought is not part of the history
      "{% for m in messages %}[{{ m.content.split('/think')[-1] }}]{% endfor %}{% if add_generation_prompt %}>{% endif "
      "%}",
      "", "");
  EXPECT_EQ(shown(render_chat(*forgets, {{"user", "q"}, {"assistant", "hm/think yes"}, {"user", "w"}})),
            "[q][ yes][w]>");
  const auto looks = text::compile_chat_template(
      "{% for m in messages %}{{ m.content | length }}.{% endfor %}{% if add_generation_prompt %}>{% endif %}", "", "");
  EXPECT_EQ(shown(render_chat(*looks, kTalk)), "8.2.4.2.>") << "marks would change what it says: no cuts";
}

TEST(RenderChat, AMessageWithTheMarksInItIsOnlyText) {
  std::vector<Message> talk = kTalk;
  talk[1].content =
      "a\xEF\xB7\x90"
      "b";
  const ChatText t = render_chat(*chat("chatml"), talk);
  EXPECT_TRUE(t.cuts.empty());
  EXPECT_NE(t.text.find("a\xEF\xB7\x90"
                        "b"),
            std::string::npos);
}

TEST(TokenizeChat, ALongerChatBeginsWithTheIdsOfAShorterOne) {
  const Pairs tokenizer;
  for (const char* name : {"chatml", "llama3", "mistral", "zephyr", "falcon", "plain"}) {
    std::vector<Message> talk = {{"user", "aaa"}};
    std::vector<int32_t> before;
    for (int turn = 0; turn < 5; ++turn) {
      const PromptIds prompt = tokenize_chat(tokenizer, render_chat(*chat(name), talk));
      ASSERT_GE(prompt.ids.size(), before.size()) << name;
      EXPECT_TRUE(std::equal(before.begin(), before.end(), prompt.ids.begin())) << name << " turn " << turn;
      before = ids_with_answer(tokenizer, *chat(name), talk, "aab\n");
      ASSERT_GT(before.size(), prompt.ids.size()) << name;
      EXPECT_TRUE(std::equal(prompt.ids.begin(), prompt.ids.end(), before.begin())) << name;
      talk.push_back({"assistant", "aab\n"});
      talk.push_back({"user", "b"});
      talk.back().content.insert(0, static_cast<size_t>(turn), '\n');
    }
  }
}

TEST(RenderContinuation, WhatFollowsAnUnknownPast) {
  EXPECT_EQ(render_continuation(*chat("chatml"), {{"user", "Go"}}).text,
            "<|im_end|>\n<|im_start|>user\nGo<|im_end|>\n<|im_start|>assistant\n");
  const auto rewrites =
      text::compile_chat_template("{% for m in messages %}{{ m.content if loop.last else '-' }}{% endfor %}", "", "");
  EXPECT_THROW(render_continuation(*rewrites, {{"user", "Go"}}), Error);
}

TEST(PlacesToKeep, BranchPointsMessagesAndCheckpoints) {
  EXPECT_THAT(places_to_keep(0, 100, 0, {}, 1024), ElementsAre(100));
  EXPECT_THAT(places_to_keep(100, 100, 100, {}, 1024), ElementsAre());
  EXPECT_THAT(places_to_keep(0, 100, 50, {}, 1024), ElementsAre(50, 100)) << "trap E5: the third request finds it";
  EXPECT_THAT(places_to_keep(45, 100, 50, {}, 1024), ElementsAre(100)) << "five tokens are read again";
  EXPECT_THAT(places_to_keep(0, 3000, 0, {}, 1024), ElementsAre(1024, 2048, 3000));
  EXPECT_THAT(places_to_keep(1500, 3000, 0, {}, 1024), ElementsAre(2048, 3000));
  EXPECT_THAT(places_to_keep(0, 300, 0, {20, 60, 100, 140, 180, 220}, 1024), ElementsAre(20, 100, 140, 180, 220, 300));
  EXPECT_THAT(places_to_keep(0, 300, 290, {20, 25, 30}, 1024), ElementsAre(20, 290, 300));
  EXPECT_LE(places_to_keep(0, 1'000'000, 0, {}, 1024).size(), 34u)
      << "trap E11: a long prompt does not fill the memory";
}

}  // namespace
}  // namespace krait::serve
