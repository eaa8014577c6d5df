// UTF-8: decoding, encoding, and replacing what is ill-formed by U+FFFD (Unicode 15, §3.9: maximal subparts).
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace krait::text {

inline constexpr char32_t kReplacement = 0xFFFD;
inline constexpr std::string_view kReplacementUtf8 = "\xEF\xBF\xBD";

enum class Utf8Status : uint8_t { kValid, kInvalid, kIncomplete };  // kIncomplete: more bytes could complete it

struct Utf8Char {
  char32_t code = kReplacement;
  uint32_t bytes = 0;  // at least 1; of an ill-formed sequence, its maximal subpart
  Utf8Status status = Utf8Status::kInvalid;
};

// The character at the front of `s`, which must not be empty.
Utf8Char decode_utf8(std::string_view s);

// The same where `s` is known to be well-formed.
inline Utf8Char decode_valid_utf8(const char* s) {
  const auto b = [&](int i) { return static_cast<char32_t>(static_cast<unsigned char>(s[i])); };
  const char32_t c = b(0);
  if (c < 0x80) return {c, 1, Utf8Status::kValid};
  if (c < 0xE0) return {(c & 0x1F) << 6 | (b(1) & 0x3F), 2, Utf8Status::kValid};
  if (c < 0xF0) return {(c & 0x0F) << 12 | (b(1) & 0x3F) << 6 | (b(2) & 0x3F), 3, Utf8Status::kValid};
  return {(c & 0x07) << 18 | (b(1) & 0x3F) << 12 | (b(2) & 0x3F) << 6 | (b(3) & 0x3F), 4, Utf8Status::kValid};
}

// Bytes of a character by its first byte, which must begin a well-formed sequence.
inline uint32_t utf8_length(char first) {
  const auto c = static_cast<unsigned char>(first);
  return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

bool is_valid_utf8(std::string_view s);
std::string replace_invalid_utf8(std::string_view s);
// `s` for a terminal: control characters, marks that change the direction of writing and bytes that are not UTF-8 as
// \n, \t, \x1B or \u202E. What is not meant to be shown cannot act.
std::string escape_controls(std::string_view s);
// The same of a message of an Error: lists of problems ("\n  " before each) keep their lines.
std::string escape_message(std::string_view s);
void append_utf8(std::string& out, char32_t code);  // `code` is a scalar value
std::string to_utf8(char32_t code);

}  // namespace krait::text
