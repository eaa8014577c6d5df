// Byte-level vocabularies write each byte as a printable character (GPT-2's table): 33-126, 161-172 and 174-255 stand
// for themselves, the other 68 bytes in increasing order for U+0100, U+0101, …
#pragma once
#include <string>
#include <string_view>

namespace krait::text {

void append_byte_chars(std::string& out, std::string_view bytes);
// The bytes that the characters of `token` stand for. A token with a character outside the table stands for itself.
std::string bytes_of_token(std::string_view token);

// Byte fallback: the byte that a token <0xXX> stands for; -1: it is another kind of token.
int fallback_byte(std::string_view token);

}  // namespace krait::text
