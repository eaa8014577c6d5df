#include "krait/text/added_tokens.h"

#include <algorithm>

#include "krait/text/unicode.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

size_t pair_of(char a, char b) { return size_t{static_cast<unsigned char>(a)} << 8 | static_cast<unsigned char>(b); }

size_t previous_char(std::string_view s, size_t i) {
  do --i;
  while (i > 0 && (static_cast<unsigned char>(s[i]) & 0xC0) == 0x80);
  return i;
}

CharClass class_at(std::string_view s, size_t i) { return char_class(decode_valid_utf8(s.data() + i).code); }

bool touches_word(std::string_view s, size_t begin, size_t end) {
  return (begin > 0 && (class_at(s, previous_char(s, begin)) & kWord) != 0) ||
         (end < s.size() && (class_at(s, end) & kWord) != 0);
}

size_t skip_spaces_back(std::string_view s, size_t i, size_t stop) {
  while (i > stop) {
    const size_t before = previous_char(s, i);
    if ((class_at(s, before) & kSpace) == 0) break;
    i = before;
  }
  return std::max(i, stop);
}

size_t skip_spaces(std::string_view s, size_t i) {
  while (i < s.size() && (class_at(s, i) & kSpace) != 0) i += utf8_length(s[i]);
  return i;
}

}  // namespace

int32_t AddedTokenMatcher::child_of(int32_t node, char byte) const {
  int32_t c = nodes_[static_cast<size_t>(node)].child;
  while (c >= 0 && nodes_[static_cast<size_t>(c)].byte != byte) c = nodes_[static_cast<size_t>(c)].sibling;
  return c;
}

void AddedTokenMatcher::add(std::string_view pattern, const AddedToken& token) {
  if (pattern.empty()) return;
  starts_.set(static_cast<unsigned char>(pattern[0]));
  if (pattern.size() > 1) {
    pairs_.set(pair_of(pattern[0], pattern[1]));
  } else {
    for (int b = 0; b < 256; ++b) pairs_.set(pair_of(pattern[0], static_cast<char>(b)));
  }
  int32_t node = 0;
  for (const char byte : pattern) {
    int32_t child = child_of(node, byte);
    if (child < 0) {
      child = static_cast<int32_t>(nodes_.size());
      nodes_.push_back({-1, nodes_[static_cast<size_t>(node)].child, -1, byte});
      nodes_[static_cast<size_t>(node)].child = child;
    }
    node = child;
  }
  if (nodes_[static_cast<size_t>(node)].token >= 0) return;  // the first of two that look the same is found
  nodes_[static_cast<size_t>(node)].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

AddedTokenMatcher::Hit AddedTokenMatcher::next_hit(std::string_view text, size_t from) const {
  for (size_t i = from; i < text.size(); ++i) {
    if (!starts_[static_cast<unsigned char>(text[i])]) continue;
    if (i + 1 < text.size() && !pairs_[pair_of(text[i], text[i + 1])]) continue;
    Hit hit;
    int32_t node = 0;
    for (size_t j = i; j < text.size(); ++j) {
      node = child_of(node, text[j]);
      if (node < 0) break;
      const int32_t token = nodes_[static_cast<size_t>(node)].token;
      if (token >= 0) hit = {i, j + 1, token};
    }
    if (hit.token >= 0) return hit;
  }
  return {};
}

void AddedTokenMatcher::split(std::string_view text, bool parse_special,
                              const std::function<void(std::string_view, int32_t)>& found) const {
  size_t done = 0;
  if (!tokens_.empty()) {
    for (Hit hit = next_hit(text, 0); hit.token >= 0; hit = next_hit(text, hit.end)) {
      const AddedToken& token = tokens_[static_cast<size_t>(hit.token)];
      if (token.special && !parse_special) continue;
      if (token.single_word && touches_word(text, hit.begin, hit.end)) continue;
      size_t begin = hit.begin, end = hit.end;
      if (token.lstrip) begin = skip_spaces_back(text, begin, done);
      if (token.rstrip) end = skip_spaces(text, end);
      if (begin >= end) continue;  // white space that the token before has taken as a whole
      if (done < begin) found(text.substr(done, begin - done), -1);
      found({}, token.id);
      done = end;  // before the end of the last one if that took spaces which are a token too: as the package does it
    }
  }
  if (done < text.size()) found(text.substr(done), -1);
}

}  // namespace krait::text
