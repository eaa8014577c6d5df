#include "krait/text/split_patterns.h"

#include <utility>

#include "krait/text/unicode.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

struct Char {
  CharClass bits = 0;
  uint32_t bytes = 0;  // 0: the text ends here
};

inline Char char_at(std::string_view s, size_t i) {
  if (i >= s.size()) return {};
  const auto first = static_cast<unsigned char>(s[i]);
  if (first < 0x80) return {kAsciiClass[first], 1};
  const Utf8Char c = decode_valid_utf8(s.data() + i);
  return {wide_char_class(c.code), c.bytes};
}

bool is_other(Char c) { return c.bytes > 0 && (c.bits & (kSpace | kLetter | kNumber)) == 0; }      // [^\s\p{L}\p{N}]
bool may_prefix(Char c) { return c.bytes > 0 && (c.bits & (kNewline | kLetter | kNumber)) == 0; }  // [^\r\n\p{L}\p{N}]

// End of the run of characters with any of `bits`.
size_t run_of(std::string_view s, size_t i, CharClass bits) {
  for (Char c = char_at(s, i); (c.bits & bits) != 0; c = char_at(s, i)) i += c.bytes;
  return i;
}

size_t run_of_other(std::string_view s, size_t i) {
  for (Char c = char_at(s, i); is_other(c); c = char_at(s, i)) i += c.bytes;
  return i;
}

enum class Case : uint8_t { kLower, kAny, kFolded };  // kFolded: (?i:…), where U+017F is an s

char lower_if(char c, Case how) { return how != Case::kLower && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

// End of 's 't 're 've 'm 'll 'd at i; i: there is none.
size_t contraction_end(std::string_view s, size_t i, Case how) {
  if (s[i] != '\'' || i + 1 >= s.size()) return i;
  const char a = lower_if(s[i + 1], how);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return i + 2;
  if (how == Case::kFolded && s.substr(i + 1).starts_with("\xC5\xBF")) return i + 3;
  if (i + 2 >= s.size()) return i;
  const char b = lower_if(s[i + 2], how);
  return ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l') ? i + 3 : i;
}

// \s+(?!\S)|\s+ : a run leaves its last character to what follows, unless it is all there is.
size_t space_end(std::string_view s, size_t i) {
  size_t last = i, end = i;
  for (Char c = char_at(s, end); (c.bits & kSpace) != 0; c = char_at(s, end)) {
    last = end;
    end += c.bytes;
  }
  return end == s.size() || last == i ? end : last;
}

// \s*[\r\n]+|\s+(?!\S)|\s+
size_t newline_or_space_end(std::string_view s, size_t i) {
  size_t end = i, after_newline = i;
  for (Char c = char_at(s, end); (c.bits & kSpace) != 0; c = char_at(s, end)) {
    end += c.bytes;
    if ((c.bits & kNewline) != 0) after_newline = end;
  }
  return after_newline > i ? after_newline : space_end(s, i);
}

// The part that Llama 3, Qwen 2 and Tekken share:
// \p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
size_t number_symbol_or_space_end(std::string_view s, size_t i, int digits, bool slash) {
  if ((char_at(s, i).bits & kNumber) != 0) {
    for (Char c = char_at(s, i); digits > 0 && (c.bits & kNumber) != 0; c = char_at(s, i), --digits) i += c.bytes;
    return i;
  }
  const size_t symbol = s[i] == ' ' ? i + 1 : i;
  if (is_other(char_at(s, symbol))) {
    size_t end = run_of_other(s, symbol);
    while (end < s.size() && (s[end] == '\r' || s[end] == '\n' || (slash && s[end] == '/'))) ++end;
    return end;
  }
  return newline_or_space_end(s, i);
}

template <Case kHow, int kDigits>
size_t llama3_piece_end(std::string_view s, size_t i) {
  if (const size_t end = contraction_end(s, i, kHow); end > i) return end;
  const Char c = char_at(s, i);
  if ((c.bits & kLetter) != 0) return run_of(s, i + c.bytes, kLetter);
  if (may_prefix(c) && (char_at(s, i + c.bytes).bits & kLetter) != 0) return run_of(s, i + c.bytes, kLetter);
  return number_symbol_or_space_end(s, i, kDigits, false);
}

constexpr CharClass kUpperSet = kUpper | kOtherLetter | kMark;  // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
constexpr CharClass kLowerSet = kLower | kOtherLetter | kMark;  // [\p{Ll}\p{Lm}\p{Lo}\p{M}]

// kUpperSet* kLowerSet+ from i; i: no match. The first run gives back what the second needs.
size_t upper_then_lower_end(std::string_view s, size_t i) {
  size_t end = i, given_back = i;
  for (Char c = char_at(s, end); (c.bits & kUpperSet) != 0; c = char_at(s, end)) {
    end += c.bytes;
    if ((c.bits & kLowerSet) != 0) given_back = end;
  }
  return (char_at(s, end).bits & kLowerSet) != 0 ? run_of(s, end, kLowerSet) : given_back;
}

size_t tekken_piece_end(std::string_view s, size_t i) {
  const Char c = char_at(s, i);
  const size_t word = may_prefix(c) ? i + c.bytes : i;  // the prefix is tried first
  for (const size_t from : {word, i}) {
    if (const size_t end = upper_then_lower_end(s, from); end > from) return end;
  }
  for (const size_t from : {word, i}) {  // kUpperSet+ kLowerSet*: no member of the latter follows, or the above matched
    if (const size_t end = run_of(s, from, kUpperSet); end > from) return end;
  }
  return number_symbol_or_space_end(s, i, 1, true);
}

}  // namespace

size_t gpt2_piece_end(std::string_view s, size_t i) {
  if (const size_t end = contraction_end(s, i, Case::kLower); end > i) return end;
  const size_t word = s[i] == ' ' ? i + 1 : i;
  const Char c = char_at(s, word);
  if ((c.bits & kLetter) != 0) return run_of(s, word + c.bytes, kLetter);
  if ((c.bits & kNumber) != 0) return run_of(s, word + c.bytes, kNumber);
  if (is_other(c)) return run_of_other(s, word + c.bytes);
  return space_end(s, i);
}

PieceEnd known_pattern(std::string_view regex) {
  static constexpr std::pair<std::string_view, PieceEnd> kKnown[] = {
      {patterns::kGpt2, gpt2_piece_end},
      {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", gpt2_piece_end},
      {patterns::kLlama3, llama3_piece_end<Case::kAny, 3>},
      {patterns::kQwen2, llama3_piece_end<Case::kAny, 1>},
      {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       llama3_piece_end<Case::kFolded, 3>},
      {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       llama3_piece_end<Case::kFolded, 1>},
      {patterns::kTekken, tekken_piece_end},
  };
  for (const auto& [text, function] : kKnown) {
    if (regex == text) return function;
  }
  return nullptr;
}

}  // namespace krait::text
