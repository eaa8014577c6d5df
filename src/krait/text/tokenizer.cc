#include "krait/text/tokenizer.h"

#include "krait/core/error.h"
#include "krait/text/utf8.h"

namespace krait::text {

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  bool first = true;
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) {
      fail_data("[decode] id " + std::to_string(id) + " is not in the vocabulary of " + std::to_string(vocab_size()));
    }
    if (skip_special && is_special(id)) continue;
    bytes += token_bytes(id, first);
    first = false;
  }
  return replace_invalid_utf8(bytes);
}

}  // namespace krait::text
