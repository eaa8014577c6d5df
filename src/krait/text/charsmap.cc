#include "krait/text/charsmap.h"

#include <fmt/format.h>

#include "krait/core/error.h"

namespace krait::text {
namespace {

// The unit of a Darts-clone double array: bits 0-7 label (or, in a leaf, bits 0-30 value), 8 has-leaf, 9 the offset
// is scaled by 256, 10-30 offset, 31 leaf.
uint32_t label_of(uint32_t unit) { return unit & (0x80000000u | 0xFF); }
uint32_t offset_of(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }
bool has_leaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }

uint32_t read_u32(std::string_view s, size_t at) {
  uint32_t v = 0;
  for (size_t i = 0; i < 4; ++i) v |= static_cast<uint32_t>(static_cast<uint8_t>(s[at + i])) << (8 * i);
  return v;
}

}  // namespace

Charsmap::Charsmap(std::string_view blob) {
  if (blob.empty()) return;
  if (blob.size() < 4) fail_data(fmt::format("[charsmap] {} bytes hold no size", blob.size()));
  const size_t trie = read_u32(blob, 0);
  if (trie == 0 || trie % 4 != 0 || trie > blob.size() - 4) {
    fail_data(fmt::format("[charsmap] a trie of {} bytes in a map of {}", trie, blob.size()));
  }
  units_.resize(trie / 4);
  for (size_t i = 0; i < units_.size(); ++i) units_[i] = read_u32(blob, 4 + 4 * i);
  pool_ = blob.substr(4 + trie);
  if (!pool_.empty() && pool_.back() != '\0') fail_data("[charsmap] the last replacement is not ended");
}

Charsmap::Match Charsmap::find(std::string_view text, bool first) const {
  Match best;
  if (units_.empty()) return best;
  size_t node = offset_of(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    node ^= byte;
    if (node >= units_.size()) fail_data(fmt::format("[charsmap] unit {} of {} is named", node, units_.size()));
    const uint32_t unit = units_[node];
    if (label_of(unit) != byte) break;
    node ^= offset_of(unit);
    if (!has_leaf(unit)) continue;
    const size_t at = node < units_.size() ? units_[node] & 0x7FFFFFFF : pool_.size();
    if (at >= pool_.size()) fail_data(fmt::format("[charsmap] a replacement at {} of {}", at, pool_.size()));
    best = {i + 1, std::string_view(pool_.c_str() + at)};
    if (first) break;
  }
  return best;
}

std::string decode_base64(std::string_view text) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.size() % 4 != 0) fail_data(fmt::format("[base64] {} characters, not a multiple of 4", text.size()));
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  std::string out;
  out.reserve(text.size() / 4 * 3);
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size() - padding; ++i) {
    const size_t digit = kDigits.find(text[i]);
    if (digit == kDigits.npos) fail_data(fmt::format("[base64] character {} is none of its alphabet", i));
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if (i % 4 != 0) out += static_cast<char>(bits >> (6 - 2 * (i % 4)) & 0xFF);
  }
  return out;
}

}  // namespace krait::text
