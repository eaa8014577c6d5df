// Charsmap: the precompiled normalization rules of SentencePiece: a double-array trie over byte strings whose values
// are offsets into a pool of replacements.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace krait::text {

class Charsmap {
 public:
  Charsmap() = default;                      // no rules
  explicit Charsmap(std::string_view blob);  // copied; throws kBadData if malformed. Empty: no rules
  bool empty() const { return units_.empty(); }

  struct Match {
    size_t length = 0;  // 0: no rule
    std::string_view replacement;
  };
  // The rule for the longest, or the shortest, prefix of `text` that has one.
  Match longest(std::string_view text) const { return find(text, false); }
  Match shortest(std::string_view text) const { return find(text, true); }

 private:
  Match find(std::string_view text, bool first) const;

  std::vector<uint32_t> units_;
  std::string pool_;  // replacements, each ended by a zero byte
};

// The bytes of base64 text, as tokenizer.json stores such rules. Throws kBadData on anything else.
std::string decode_base64(std::string_view text);

}  // namespace krait::text
