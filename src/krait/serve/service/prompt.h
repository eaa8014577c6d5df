// Prompts: text or messages -> token ids. What a request reads is a function of the request alone, and a longer chat
// begins with the ids of a shorter one: messages are tokenised apart from each other, and so are answers.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "krait/text/chat_template.h"
#include "krait/text/tokenizer.h"

namespace krait::serve {

// The text of messages, and where it is cut before it is tokenised: behind a system message that opens the chat, where
// an answer begins (what opens the assistant's turn is before it), and where it ends. Cuts are places of `text`,
// ascending. A template that does more than print each message once gives no cuts, which costs nothing but reuse.
struct ChatText {
  std::string text;
  std::vector<size_t> cuts;
};
// With what opens the assistant's turn at the end.
ChatText render_chat(const text::ChatTemplate& chat, const std::vector<text::Message>& messages);
// The same for messages that follow a turn whose text is not known. Throws kUsage if the template rewrites earlier
// turns, so that it cannot go on from a state.
ChatText render_continuation(const text::ChatTemplate& chat, const std::vector<text::Message>& messages);

struct PromptIds {
  std::vector<int32_t> ids;
  std::vector<int64_t> cuts;  // numbers of ids before the cuts of the text, ascending, without 0 and all
};
PromptIds tokenize_chat(const text::Tokenizer& tokenizer, const ChatText& chat);

// Texts of special tokens. Within a message they would become these tokens: one could write turns of others.
class ControlTexts {
 public:
  explicit ControlTexts(const text::Tokenizer& tokenizer);
  // Throws ServeError 400 "control_token" if a message holds one.
  void refuse_in(const std::vector<text::Message>& messages) const;

 private:
  std::vector<std::string> texts_;
};

// What a later request with `messages`, this answer and more begins with, up to the end of the answer; empty if that
// cannot be told.
std::vector<int32_t> ids_with_answer(const text::Tokenizer& tokenizer, const text::ChatTemplate& chat,
                                     std::vector<text::Message> messages, const std::string& answer);

// Positions at which a state is kept while `total` tokens are read, the first `have` of which a state has read already.
// `known`: where the prompt leaves those read before; `cuts`: of messages; `every`: tokens between states of a long
// prompt. Ascending, behind `have`, the last one is `total` (none if that is `have`).
std::vector<int64_t> places_to_keep(int64_t have, int64_t total, int64_t known, const std::vector<int64_t>& cuts,
                                    int64_t every);

}  // namespace krait::serve
