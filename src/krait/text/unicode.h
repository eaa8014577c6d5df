// Character classes as regular expressions of tokenizers see them, and the normalization forms.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace krait::text {

// Bits; general categories of Unicode 16.
using CharClass = uint16_t;
inline constexpr CharClass kUpper = 1;         // Lu, Lt
inline constexpr CharClass kLower = 2;         // Ll
inline constexpr CharClass kOtherLetter = 4;   // Lm, Lo
inline constexpr CharClass kMark = 8;          // Mn, Mc, Me
inline constexpr CharClass kDecimal = 16;      // Nd
inline constexpr CharClass kOtherNumber = 32;  // Nl, No
inline constexpr CharClass kPunctuation = 64;  // Pc, Pd, Ps, Pe, Pi, Pf, Po
inline constexpr CharClass kSymbol = 128;      // Sm, Sc, Sk, So
inline constexpr CharClass kSpace = 256;       // White_Space: what \s means
inline constexpr CharClass kWord = 512;        // what \w means
inline constexpr CharClass kNewline = 1024;    // CR, LF
inline constexpr CharClass kLetter = kUpper | kLower | kOtherLetter;
inline constexpr CharClass kNumber = kDecimal | kOtherNumber;

constexpr CharClass ascii_class(char c) {
  if (c >= 'a' && c <= 'z') return kLower | kWord;
  if (c >= 'A' && c <= 'Z') return kUpper | kWord;
  if (c >= '0' && c <= '9') return kDecimal | kWord;
  if (c == '\n' || c == '\r') return kSpace | kNewline;
  if (c == ' ' || (c >= '\t' && c <= '\r')) return kSpace;
  if (c == '_') return kPunctuation | kWord;
  if (c == '$' || c == '+' || c == '<' || c == '=' || c == '>' || c == '^' || c == '`' || c == '|' || c == '~') {
    return kSymbol;
  }
  return c > ' ' && c < 0x7F ? kPunctuation : 0;
}

inline constexpr std::array<CharClass, 128> kAsciiClass = [] {
  std::array<CharClass, 128> table{};
  for (int c = 0; c < 128; ++c) table[static_cast<size_t>(c)] = ascii_class(static_cast<char>(c));
  return table;
}();

CharClass wide_char_class(char32_t c);  // any code point from 0x80
inline CharClass char_class(char32_t c) { return c < 0x80 ? kAsciiClass[c] : wide_char_class(c); }

inline bool is_number(char32_t c) { return (char_class(c) & kNumber) != 0; }
inline bool is_space(char32_t c) { return (char_class(c) & kSpace) != 0; }
// What the Punctuation pre-tokenizer means: ASCII symbols too, and else the punctuation of Unicode 8.
bool is_punctuation(char32_t c);

enum class NormalForm : uint8_t { kNfc, kNfd, kNfkc, kNfkd };
// `s` is well-formed UTF-8. Characters that are newer than Unicode 9 stay as they are and in place: so does the
// normalizer of the tokenizers package, with which vocabularies were trained.
std::string normalize(std::string_view s, NormalForm form);
// Whether normalize(s, kNfc) is certainly `s` (a fast test; false means "perhaps not").
bool is_surely_nfc(std::string_view s);
std::string to_lower(std::string_view s);

}  // namespace krait::text
