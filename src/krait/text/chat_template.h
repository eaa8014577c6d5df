// Chat templates: messages -> the text a chat model was trained on.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "krait/text/tokenizer.h"

namespace krait::text {

struct Message {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;
  // Text of the messages; `add_generation_prompt`: followed by what opens the assistant's turn. Throws kBadData if the
  // template refuses the messages (roles that must alternate, …).
  virtual std::string render(const std::vector<Message>&, bool add_generation_prompt) const = 0;
};

// Compiles the Jinja subset that published templates use; throws kBadData naming the construct it does not know, with
// its line. bos / eos: the texts of these tokens, visible to the template.
std::unique_ptr<ChatTemplate> compile_chat_template(const std::string& source, const std::string& bos,
                                                    const std::string& eos);
// The common ones by name ("chatml", "llama3", "mistral", "zephyr", "plain", …); throws kUsage listing the names.
std::unique_ptr<ChatTemplate> named_chat_template(const std::string& name, const std::string& bos,
                                                  const std::string& eos);
// The named one if a name is given, else the tokenizer's own; null if it has none (a base model).
std::unique_ptr<ChatTemplate> choose_chat_template(const Tokenizer&,
                                                   const std::optional<std::string>& name = std::nullopt);

}  // namespace krait::text
