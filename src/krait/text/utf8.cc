#include "krait/text/utf8.h"

#include <cstdio>

#include <cstring>

namespace krait::text {
namespace {

// Smallest and largest second byte after `first` (Unicode 15, table 3-7); others are 80..BF.
struct Range {
  unsigned char low, high;
};

Range second_byte(unsigned char first) {
  switch (first) {
    case 0xE0:
      return {0xA0, 0xBF};
    case 0xED:
      return {0x80, 0x9F};
    case 0xF0:
      return {0x90, 0xBF};
    case 0xF4:
      return {0x80, 0x8F};
    default:
      return {0x80, 0xBF};
  }
}

// Length of the ASCII run at the front.
size_t ascii_run(const char* s, size_t n) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t word;
    std::memcpy(&word, s + i, 8);
    if ((word & 0x8080808080808080u) != 0) break;
  }
  while (i < n && static_cast<unsigned char>(s[i]) < 0x80) ++i;
  return i;
}

// Length of the well-formed run at the front.
size_t valid_run(std::string_view s) {
  size_t i = 0;
  while (true) {
    i += ascii_run(s.data() + i, s.size() - i);
    if (i == s.size()) return i;
    const Utf8Char c = decode_utf8(s.substr(i));
    if (c.status != Utf8Status::kValid) return i;
    i += c.bytes;
  }
}

}  // namespace

Utf8Char decode_utf8(std::string_view s) {
  const auto first = static_cast<unsigned char>(s[0]);
  if (first < 0x80) return {first, 1, Utf8Status::kValid};
  if (first < 0xC2 || first > 0xF4) return {kReplacement, 1, Utf8Status::kInvalid};
  const uint32_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  char32_t code = first & (0xFFu >> (length + 1));
  for (uint32_t i = 1; i < length; ++i) {
    if (i == s.size()) return {kReplacement, i, Utf8Status::kIncomplete};
    const auto b = static_cast<unsigned char>(s[i]);
    const Range want = i == 1 ? second_byte(first) : Range{0x80, 0xBF};
    if (b < want.low || b > want.high) return {kReplacement, i, Utf8Status::kInvalid};
    code = code << 6 | (b & 0x3Fu);
  }
  return {code, length, Utf8Status::kValid};
}

bool is_valid_utf8(std::string_view s) { return valid_run(s) == s.size(); }

std::string replace_invalid_utf8(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  while (true) {
    const size_t run = valid_run(s);
    out.append(s.substr(0, run));
    s.remove_prefix(run);
    if (s.empty()) return out;
    out.append(kReplacementUtf8);
    s.remove_prefix(decode_utf8(s).bytes);
  }
}

namespace {

bool acts_on_a_terminal(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x200E || c == 0x200F || (c >= 0x2028 && c <= 0x202E) ||
         (c >= 0x2066 && c <= 0x2069);
}

}  // namespace

std::string escape_controls(std::string_view s) {
  std::string out;
  while (!s.empty()) {
    const Utf8Char c = decode_utf8(s);
    char code[16];
    if (c.status != Utf8Status::kValid) {
      for (const char byte : s.substr(0, c.bytes)) {
        std::snprintf(code, sizeof code, "\\x%02X", static_cast<unsigned char>(byte));
        out += code;
      }
    } else if (c.code == '\n' || c.code == '\t') {
      out += c.code == '\n' ? "\\n" : "\\t";
    } else if (acts_on_a_terminal(c.code)) {
      std::snprintf(code, sizeof code, c.code < 0x80 ? "\\x%02X" : "\\u%04X", static_cast<unsigned>(c.code));
      out += code;
    } else {
      out += s.substr(0, c.bytes);
    }
    s.remove_prefix(c.bytes);
  }
  return out;
}

std::string escape_message(std::string_view s) {
  constexpr std::string_view kItem = "\n  ";
  std::string out;
  for (size_t end; (end = s.find(kItem)) != std::string_view::npos; s.remove_prefix(end + kItem.size())) {
    out += escape_controls(s.substr(0, end));
    out += kItem;
  }
  return out + escape_controls(s);
}

void append_utf8(std::string& out, char32_t code) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xC0 | code >> 6);
  } else {
    if (code < 0x10000) {
      put(0xE0 | code >> 12);
    } else {
      put(0xF0 | code >> 18);
      put(0x80 | (code >> 12 & 0x3F));
    }
    put(0x80 | (code >> 6 & 0x3F));
  }
  put(0x80 | (code & 0x3F));
}

std::string to_utf8(char32_t code) {
  std::string s;
  append_utf8(s, code);
  return s;
}

}  // namespace krait::text
