// TokenText: tokens in, text out as it may be shown: whole characters, nothing of a stop string, no special tokens.
#pragma once
#include <string>
#include <vector>

#include "krait/text/stop_matcher.h"
#include "krait/text/tokenizer.h"
#include "krait/text/utf8_stream.h"

namespace krait::cli {

class TokenText {
 public:
  // `tokenizer` must outlive it.
  TokenText(const text::Tokenizer& tokenizer, const std::vector<std::string>& stops)
      : tokenizer_(&tokenizer), matcher_(stops) {}

  std::string push(int32_t id) { return keep(matcher_.push(utf8_.push(bytes_of(id)))); }
  // What was held back; call once, after the last token.
  std::string finish() {
    std::string out = matcher_.push(utf8_.finish());
    out += matcher_.finish();
    return keep(std::move(out));
  }
  const std::string* stop() const { return matcher_.found(); }  // the stop string that was found, or null
  const std::string& text() const { return text_; }             // all that push() and finish() returned

 private:
  std::string bytes_of(int32_t id) const { return tokenizer_->is_special(id) ? "" : tokenizer_->token_bytes(id); }
  std::string keep(std::string part) {
    text_ += part;
    return part;
  }

  const text::Tokenizer* tokenizer_;
  text::Utf8Stream utf8_;
  text::StopMatcher matcher_;
  std::string text_;
};

}  // namespace krait::cli
