// DocumentEncoder: what is learned from (a text, a conversation, a prompt and its completion) into ids.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "krait/text/chat_template.h"
#include "krait/text/tokenizer.h"

namespace krait::text {

struct Document {
  enum class Kind : uint8_t { kText, kCompletion, kChat };
  Kind kind = Kind::kText;
  std::string text{};               // kText: all of it; kCompletion: the completion
  std::string prompt{};             // kCompletion
  std::vector<Message> messages{};  // kChat
  std::string where{};              // for messages: the file, with the line if it has one
};

struct EncodedDocument {
  std::vector<int32_t> ids;
  std::vector<uint8_t> learned;  // [ids]; 0: not to be learned (a prompt, a user's turn). Empty: all are
};

struct DocumentOptions {
  // Around texts, and prompts with their completions. Unset: what the tokenizer's post-processor adds.
  std::optional<std::vector<int32_t>> before{};
  std::vector<int32_t> after{};
  bool around_chats = false;      // around conversations too, whose template says how they begin and end
  bool split_paragraphs = false;  // texts: each part between "\n\n" encoded by itself, with "\n\n" after it
  bool parse_special = false;     // special tokens written in texts become their ids
  bool learn_all = false;         // prompts and the turns of others too
};

class DocumentEncoder {
 public:
  // The tokenizer must outlive it. `chat`: null where there are no conversations.
  DocumentEncoder(const Tokenizer&, std::unique_ptr<ChatTemplate> chat, DocumentOptions);

  // Thread-safe. Texts are UTF-8. Throws kBadData: a conversation that the template refuses, or of which it is not
  // clear what the assistant said; no template.
  EncodedDocument encode(const Document&) const;

 private:
  void append(const std::string& text, bool parse_special, bool learned, EncodedDocument&) const;
  void append_text(const std::string& text, EncodedDocument&) const;
  void append_chat(const Document&, EncodedDocument&) const;

  const Tokenizer& tokenizer_;
  std::unique_ptr<ChatTemplate> chat_;
  DocumentOptions options_;
  std::vector<int32_t> before_, after_;
};

}  // namespace krait::text
