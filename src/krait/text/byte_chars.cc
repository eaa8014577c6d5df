#include "krait/text/byte_chars.h"

#include <array>
#include <cstdint>

#include "krait/text/utf8.h"

namespace krait::text {
namespace {

constexpr bool stands_for_itself(int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; }
constexpr char32_t kFirst = 0x100, kEnd = kFirst + 68;

struct Tables {
  struct Chars {
    char bytes[2];
    uint8_t size;
  };
  std::array<Chars, 256> of_byte{};
  std::array<int16_t, kEnd> byte_of{};  // -1: no byte

  constexpr Tables() {
    for (auto& b : byte_of) b = -1;
    char32_t next = kFirst;
    for (int b = 0; b < 256; ++b) {
      const char32_t c = stands_for_itself(b) ? static_cast<char32_t>(b) : next++;
      byte_of[c] = static_cast<int16_t>(b);
      auto& chars = of_byte[static_cast<size_t>(b)];
      chars = c < 0x80 ? Chars{{static_cast<char>(c), 0}, 1}
                       : Chars{{static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))}, 2};
    }
  }
};
constexpr Tables kTables;

}  // namespace

void append_byte_chars(std::string& out, std::string_view bytes) {
  const size_t start = out.size();
  out.resize(start + 2 * bytes.size());
  char* to = out.data() + start;
  for (const char b : bytes) {
    const auto& c = kTables.of_byte[static_cast<unsigned char>(b)];
    to[0] = c.bytes[0];
    to[1] = c.bytes[1];
    to += c.size;
  }
  out.resize(static_cast<size_t>(to - out.data()));
}

std::string bytes_of_token(std::string_view token) {
  std::string out;
  out.reserve(token.size());
  for (size_t i = 0; i < token.size();) {
    const Utf8Char c = decode_utf8(token.substr(i));
    const int16_t byte = c.status == Utf8Status::kValid && c.code < kEnd ? kTables.byte_of[c.code] : int16_t{-1};
    if (byte < 0) return std::string(token);
    out.push_back(static_cast<char>(byte));
    i += c.bytes;
  }
  return out;
}

int fallback_byte(std::string_view t) {
  if (t.size() != 6 || !t.starts_with("<0x") || t[5] != '>') return -1;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
  };
  const int high = digit(t[3]), low = digit(t[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace krait::text
