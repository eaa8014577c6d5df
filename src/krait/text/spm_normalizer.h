// SpmNormalizer: what SentencePiece does to a text before it is cut into pieces.
#pragma once
#include <string>
#include <string_view>

#include "krait/text/charsmap.h"
#include "krait/text/piece_trie.h"
#include "krait/text/spm_model.h"

namespace krait::text {

inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581

class SpmNormalizer {
 public:
  // `user_defined` (must outlive this): pieces that the character rules leave alone.
  SpmNormalizer(const SpmModel&, const PieceTrie& user_defined);

  // `text`: valid UTF-8. `prefix`: it may get the leading space, if the model wants one.
  std::string normalize(std::string_view text, bool prefix = true) const;

 private:
  struct Step {
    std::string_view out;
    size_t consumed;
  };
  Step step(std::string_view text) const;

  Charsmap charsmap_;
  const PieceTrie& user_defined_;
  bool add_prefix_, remove_extra_, escape_;
};

}  // namespace krait::text
