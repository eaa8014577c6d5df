#include "krait/text/tokenizer.h"

#include "krait/core/error.h"
#include "krait/text/utf8.h"

namespace krait::text {

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes, run;
  bool first = true;
  const auto end_run = [&] {
    if (!run.empty()) bytes += text_of_bytes(run);
    run.clear();
  };
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) {
      fail_data("[decode] id " + std::to_string(id) + " is not in the vocabulary of " + std::to_string(vocab_size()));
    }
    if (skip_special && is_special(id)) continue;
    if (is_byte(id)) {
      run += token_bytes(id, first);
    } else {
      end_run();
      bytes += token_bytes(id, first);
    }
    first = false;
  }
  end_run();
  return replace_invalid_utf8(bytes);
}

std::string Tokenizer::text_of_bytes(std::string_view run) const {
  std::string out;
  while (!run.empty()) {
    const Utf8Char c = decode_utf8(run);
    const bool valid = c.status == Utf8Status::kValid;
    out += valid ? run.substr(0, c.bytes) : kReplacementUtf8;
    run.remove_prefix(valid ? c.bytes : 1);
  }
  return out;
}

}  // namespace krait::text
