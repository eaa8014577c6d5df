#include "krait/text/spm_normalizer.h"

#include "krait/text/utf8.h"

namespace krait::text {

SpmNormalizer::SpmNormalizer(const SpmModel& m, const PieceTrie& user_defined)
    : charsmap_(m.charsmap),
      user_defined_(user_defined),
      add_prefix_(m.add_dummy_prefix),
      remove_extra_(m.remove_extra_whitespaces),
      escape_(m.escape_whitespaces) {}

SpmNormalizer::Step SpmNormalizer::step(std::string_view text) const {
  if (const auto m = user_defined_.longest(text); m.length > 0) return {text.substr(0, m.length), m.length};
  if (const auto m = charsmap_.longest(text); m.length > 0) return {m.replacement, m.length};
  const size_t n = utf8_length(text[0]);
  return {text.substr(0, n), n};
}

std::string SpmNormalizer::normalize(std::string_view text, bool prefix) const {
  const std::string_view space = escape_ ? kSpaceSymbol : std::string_view(" ");
  if (remove_extra_) {
    while (!text.empty()) {
      const Step s = step(text);
      if (s.out != " ") break;
      text.remove_prefix(s.consumed);
    }
  }
  std::string out;
  if (text.empty()) return out;
  out.reserve(text.size() + text.size() / 2);
  if (add_prefix_ && prefix) out += space;
  bool after_space = remove_extra_;
  while (!text.empty()) {
    Step s = step(text);
    text.remove_prefix(s.consumed);
    while (after_space && s.out.starts_with(' ')) s.out.remove_prefix(1);
    if (s.out.empty()) continue;
    for (const char c : s.out) {
      if (c == ' ') {
        out += space;
      } else {
        out += c;
      }
    }
    after_space = remove_extra_ && s.out.ends_with(' ');
  }
  if (remove_extra_) {
    while (out.ends_with(space)) out.resize(out.size() - space.size());
  }
  return out;
}

}  // namespace krait::text
