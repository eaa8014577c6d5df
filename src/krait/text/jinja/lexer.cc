#include "krait/text/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "krait/core/error.h"
#include "krait/text/utf8.h"

namespace krait::text::jinja {
namespace {

using Kind = Token::Kind;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      const size_t tag = next_tag();
      const char kind = tag < source_.size() ? source_[tag + 1] : '\0';
      text_before(tag, kind);
      if (tag == source_.size()) break;
      at_ = tag + 2;
      if (at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+')) {
        if (source_[at_] == '-' || kind != '{') ++at_;
      }
      if (kind == '#') {
        comment();
      } else {
        this->tag(kind == '%');
      }
    }
    push(Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const {
    fail_data(fmt::format("[chat template] line {}: {}", line_, message));
  }
  void push(Kind kind, std::string_view text) { tokens_.push_back({kind, std::string(text), line_}); }
  bool here(std::string_view s) const { return std::string_view(source_).substr(at_).starts_with(s); }
  void advance(size_t n) {
    line_ += static_cast<int>(
        std::count(source_.begin() + static_cast<int64_t>(at_), source_.begin() + static_cast<int64_t>(at_ + n), '\n'));
    at_ += n;
  }

  size_t next_tag() const {
    for (size_t i = at_; (i = source_.find('{', i)) != source_.npos; ++i) {
      if (i + 1 < source_.size() && (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#')) return i;
    }
    return source_.size();
  }

  void text_before(size_t tag, char kind) {
    std::string_view text = std::string_view(source_).substr(at_, tag - at_);
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (tag < source_.size() && sign == '-') {
      text = trim_right(text);
    } else if (tag < source_.size() && kind != '{' && sign != '+') {
      const size_t newline = text.rfind('\n');
      const size_t start = newline == text.npos ? 0 : newline + 1;
      // Only blanks between the start of a line and the tag.
      if ((newline != text.npos || line_start_) && trim_left(text.substr(start)).empty()) text = text.substr(0, start);
    }
    if (!text.empty()) push(Kind::kText, text);
    advance(tag - at_);
  }

  // Behind "%}" or "#}": with '-' all whitespace goes, with '+' nothing, else one newline. Behind "}}" only '-' acts.
  void after_tag(char sign, bool print) {
    if (sign == '-') {
      const std::string_view rest = std::string_view(source_).substr(at_);
      advance(rest.size() - trim_left(rest).size());
    } else if (sign != '+' && !print && here("\n")) {
      advance(1);
    }
    line_start_ = source_[at_ - 1] == '\n';
  }

  void comment() {
    const size_t end = source_.find("#}", at_);
    if (end == source_.npos) fail("a comment is not closed");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    advance(end + 2 - at_);
    after_tag(sign, false);
  }

  void tag(bool block) {
    push(block ? Kind::kBlockBegin : Kind::kPrintBegin, "");
    std::string open;  // brackets
    while (true) {
      while (at_ < source_.size() && std::string_view(" \t\n\v\f").find(source_[at_]) != std::string_view::npos)
        advance(1);
      if (at_ >= source_.size()) fail("a tag is not closed");
      if (open.empty()) {
        const std::string_view close = block ? "%}" : "}}";
        const char sign = source_[at_] == '-' || (block && source_[at_] == '+') ? source_[at_] : '\0';
        if (std::string_view(source_).substr(at_ + (sign != '\0')).starts_with(close)) {
          push(block ? Kind::kBlockEnd : Kind::kPrintEnd, "");
          advance(2 + (sign != '\0'));
          return after_tag(sign, !block);
        }
      }
      token(open);
    }
  }

  void token(std::string& open) {
    const char c = source_[at_];
    if (is_letter(c)) return name();
    if (is_digit(c)) return number();
    if (c == '\'' || c == '"') return string(c);
    static constexpr std::array<std::string_view, 29> kOperators = {
        "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=",
        "(",  ")",  "[",  "]",  "{",  "}",  ".", ",", ":", "|", ";", "!", "&", "@"};
    for (const std::string_view op : kOperators) {
      if (!here(op)) continue;
      if (c == '(' || c == '[' || c == '{') open += c;
      if (c == ')' || c == ']' || c == '}') {
        const char opener = c == ')' ? '(' : c == ']' ? '[' : '{';
        if (open.empty() || open.back() != opener) fail(fmt::format("'{}' closes nothing", c));
        open.pop_back();
      }
      push(Kind::kOperator, op);
      return advance(op.size());
    }
    fail(fmt::format("character '{}' has no meaning in a tag",
                     source_.substr(at_, decode_utf8(std::string_view(source_).substr(at_)).bytes)));
  }

  void name() {
    size_t n = 1;
    while (at_ + n < source_.size() && (is_letter(source_[at_ + n]) || is_digit(source_[at_ + n]))) ++n;
    push(Kind::kName, source_.substr(at_, n));
    at_ += n;
  }

  void number() {
    std::string digits;
    size_t i = at_;
    bool real = false;
    for (; i < source_.size(); ++i) {
      const char c = source_[i];
      const bool digit_next = i + 1 < source_.size() && is_digit(source_[i + 1]);
      if (is_digit(c)) {
        digits += c;
      } else if (c == '.' && !real && digit_next) {
        real = true;
        digits += c;
      } else if (c != '_' || !digit_next) {
        break;
      }
    }
    if (i < source_.size() && is_letter(source_[i])) fail("numbers with letters are not supported");
    push(real ? Kind::kFloat : Kind::kInteger, digits);
    at_ = i;
  }

  void string(char mark) {
    std::string value;
    const int first_line = line_;
    for (advance(1); at_ < source_.size() && source_[at_] != mark;) {
      if (source_[at_] != '\\') {
        value += source_[at_];
        advance(1);
      } else {
        escape(value);
      }
    }
    if (at_ >= source_.size()) fail("a string is not closed");
    ++at_;
    tokens_.push_back({Kind::kString, std::move(value), first_line});
  }

  void escape(std::string& value) {
    const char c = at_ + 1 < source_.size() ? source_[at_ + 1] : '\0';
    constexpr std::string_view kNames = "ntrabfv\\'\"", kValues = "\n\t\r\a\b\f\v\\'\"";
    if (const size_t i = kNames.find(c); c != '\0' && i != kNames.npos) {
      value += kValues[i];
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const size_t n = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      uint32_t code = 0;
      const char *begin = source_.c_str() + at_ + 2, *end = begin + n;
      if (source_.size() - at_ < 2 + n || std::from_chars(begin, end, code, 16).ptr != end || code > 0x10FFFF ||
          (code >= 0xD800 && code < 0xE000)) {
        fail(fmt::format("\\{} needs {} hexadecimal digits of a character", c, n));
      }
      append_utf8(value, code);
      return advance(2 + n);
    } else if (is_digit(c) || c == 'N') {
      fail(fmt::format("the escape \\{} is not supported", c));
    } else if (c != '\n') {  // Python keeps unknown escapes
      value += '\\';
      return advance(1);
    }
    advance(2);
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_start_ = true;  // at_ is at the start of a line
  std::vector<Token> tokens_;
};

}  // namespace

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string_view trim_left(std::string_view s) {
  while (!s.empty()) {
    const Utf8Char c = decode_utf8(s);
    if (!is_space(c.code)) break;
    s.remove_prefix(c.bytes);
  }
  return s;
}

std::string_view trim_right(std::string_view s) {
  while (!s.empty()) {
    size_t start = s.size() - 1;
    while (start > 0 && s.size() - start < 4 && (static_cast<unsigned char>(s[start]) & 0xC0) == 0x80) --start;
    if (!is_space(decode_utf8(s.substr(start)).code)) break;
    s.remove_suffix(s.size() - start);
  }
  return s;
}

std::vector<Token> tokenize(std::string_view source) {
  std::string text;
  for (size_t i = 0; i < source.size(); ++i) {  // all newlines as \n
    if (source[i] != '\r') {
      text += source[i];
    } else if (i + 1 == source.size() || source[i + 1] != '\n') {
      text += '\n';
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return Lexer(replace_invalid_utf8(text)).run();
}

}  // namespace krait::text::jinja
