// Cuts a template into text and the tokens of its tags. Whitespace rules: trim_blocks and lstrip_blocks on, as
// transformers sets them, and one newline at the very end is dropped.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace krait::text::jinja {

struct Token {
  enum class Kind {
    kText,
    kBlockBegin,
    kBlockEnd,
    kPrintBegin,
    kPrintEnd,
    kName,
    kInteger,
    kFloat,
    kString,
    kOperator,
    kEnd
  };
  Kind kind;
  std::string text;  // of kString: its value
  int line;
};

// Throws kBadData with the line. The last token is kEnd.
std::vector<Token> tokenize(std::string_view source);

// Whether Python counts a character as whitespace.
bool is_space(char32_t c);
std::string_view trim_left(std::string_view s);
std::string_view trim_right(std::string_view s);

}  // namespace krait::text::jinja
