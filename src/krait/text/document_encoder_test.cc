#include "krait/text/document_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "krait/core/error.h"
#include "krait/text/bpe_trainer.h"
#include "krait/text/content_hash.h"
#include "krait/text/factories.h"

namespace krait::text {
namespace {

using testing::HasSubstr;

// "<|endoftext|>", "<|im_start|>", "<|im_end|>", the bytes and a few merges.
std::unique_ptr<Tokenizer> tokenizer(const std::vector<std::string>& special = {"<|endoftext|>", "<|im_start|>",
                                                                                "<|im_end|>"}) {
  ThreadPool pool(1);
  BpeTrainer trainer({.vocab_size = 270, .special = special}, pool);
  trainer.add({"the state of the model, the state\n\nof the model"});
  return make_json_tokenizer(trainer.finish().json, "trained", SideFiles{});
}

// Text of the ids that are learned (or not).
std::string text_of(const Tokenizer& t, const EncodedDocument& d, bool learned) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < d.ids.size(); ++i) {
    if ((d.learned.empty() || d.learned[i] != 0) == learned) ids.push_back(d.ids[i]);
  }
  return t.decode(ids, false);
}

TEST(DocumentEncoder, TextsStandBetweenWhatIsAsked) {
  const auto t = tokenizer();
  const DocumentEncoder plain(*t, nullptr, {}), ends(*t, nullptr, {.before = {{1, 2}}, .after = {0}});
  const Document d{.text = "the state <|endoftext|>"};
  EXPECT_EQ(plain.encode(d).ids, t->encode(d.text, {.add_special = false, .parse_special = false}));
  EXPECT_EQ(text_of(*t, ends.encode(d), true), "<|im_start|><|im_end|>the state <|endoftext|><|endoftext|>");
  EXPECT_TRUE(ends.encode(d).learned.empty());
  const DocumentEncoder parsing(*t, nullptr, {.parse_special = true});
  EXPECT_EQ(parsing.encode(d).ids.back(), 0);
  EXPECT_NE(plain.encode(d).ids.back(), 0);
}

TEST(DocumentEncoder, ParagraphsAreEncodedByThemselves) {
  const auto t = tokenizer();
  const DocumentEncoder encoder(*t, nullptr, {.before = {{0}}, .split_paragraphs = true});
  for (const char* text : {"", "the", "the\n\nstate", "the\n\n\n\nstate\n\n", "\n\n\nthe"}) {
    std::vector<int32_t> wanted{0};
    std::string rest = text;
    for (;;) {  // Python's text.split("\n\n")
      const size_t end = rest.find("\n\n");
      const auto ids = t->encode(rest.substr(0, end) + "\n\n", {.add_special = false});
      wanted.insert(wanted.end(), ids.begin(), ids.end());
      if (end == std::string::npos) break;
      rest = rest.substr(end + 2);
    }
    EXPECT_EQ(encoder.encode({.text = text}).ids, wanted) << text;
  }
}

TEST(DocumentEncoder, OfACompletionTheAnswerIsLearned) {
  const auto t = tokenizer();
  const Document d{.kind = Document::Kind::kCompletion, .text = "model", .prompt = "the state of"};
  const DocumentEncoder encoder(*t, nullptr, {.after = {0}});
  EXPECT_EQ(text_of(*t, encoder.encode(d), true), "model<|endoftext|>");
  EXPECT_EQ(text_of(*t, encoder.encode(d), false), "the state of");
  EXPECT_TRUE(DocumentEncoder(*t, nullptr, {.learn_all = true}).encode(d).learned.empty());
}

TEST(DocumentEncoder, OfAConversationWhatTheAssistantSaysIsLearned) {
  const auto t = tokenizer();
  Document d{
      .kind = Document::Kind::kChat,
      .messages = {
          {"system", "Be nice."}, {"user", "Hi"}, {"assistant", "Yes."}, {"user", "Bye"}, {"assistant", "So long."}}};
  const DocumentEncoder encoder(*t, choose_chat_template(*t, "chatml"), {.after = {0}});
  const EncodedDocument e = encoder.encode(d);
  EXPECT_EQ(text_of(*t, e, true), "Yes.<|im_end|>\nSo long.<|im_end|>\n");
  EXPECT_EQ(text_of(*t, e, false),
            "<|im_start|>system\nBe nice.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
            "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n");
  // What the model sees as a prompt when it answers.
  const auto prompt = t->encode(choose_chat_template(*t, "chatml")->render({d.messages[0], d.messages[1]}, true));
  EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), e.ids.begin()));
  // What nobody answers is left out: nothing of it is learned.
  d.messages.push_back({"user", "One more"});
  EXPECT_EQ(encoder.encode(d).ids, e.ids);
  const DocumentEncoder all(*t, choose_chat_template(*t, "chatml"),
                            {.after = {0}, .around_chats = true, .learn_all = true});
  EXPECT_TRUE(all.encode(d).learned.empty());
  EXPECT_THAT(text_of(*t, all.encode(d), true), testing::EndsWith("One more<|im_end|>\n<|endoftext|>"));
}

std::string refused(const DocumentEncoder& encoder, const Document& d) {
  try {
    encoder.encode(d);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadData);
    return e.what();
  }
  return "";
}

TEST(DocumentEncoder, ConversationsThatCannotBeLearnedAreRefused) {
  const auto t = tokenizer();
  const Document d{.kind = Document::Kind::kChat,
                   .messages = {{"user", "Hi"}, {"assistant", "Yes."}, {"user", "Bye"}, {"assistant", "Bye."}},
                   .where = "x.jsonl:7"};
  EXPECT_THAT(refused(DocumentEncoder(*t, nullptr, {}), d), HasSubstr("x.jsonl:7: a conversation, and the tokenizer"));
  const std::string forgetful = "{{ messages[-1].content }}{% if add_generation_prompt %}>{% endif %}";
  EXPECT_THAT(refused(DocumentEncoder(*t, compile_chat_template(forgetful, "", ""), {}), d),
              HasSubstr("not clear what the assistant said"));
}

TEST(ContentHash, TellsVocabulariesApart) {
  const auto a = tokenizer(), b = tokenizer(), c = tokenizer({"<|endoftext|>", "<|im_start|>", "<|im_end>|"}),
             d = tokenizer({});
  EXPECT_EQ(content_hash(*a), content_hash(*b));
  EXPECT_NE(content_hash(*a), content_hash(*c));
  EXPECT_NE(content_hash(*a), content_hash(*d));
}

}  // namespace
}  // namespace krait::text
