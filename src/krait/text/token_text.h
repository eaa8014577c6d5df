// TokenText: tokens in, text out as it may be shown: whole characters, nothing of a stop string, no special tokens.
#pragma once
#include <string>
#include <vector>

#include "krait/text/stop_matcher.h"
#include "krait/text/tokenizer.h"
#include "krait/text/utf8_stream.h"

namespace krait::text {

class TokenText {
 public:
  // `tokenizer` must outlive it.
  TokenText(const Tokenizer& tokenizer, const std::vector<std::string>& stops)
      : tokenizer_(&tokenizer), matcher_(stops) {}

  std::string push(int32_t id);
  // What was held back; call once, after the last token.
  std::string finish();
  const std::string* stop() const { return matcher_.found(); }  // the stop string that was found, or null
  const std::string& text() const { return text_; }             // all that push() and finish() returned
  // How many of the tokens, from the first on, lie wholly before the stop string; all of them if none was found.
  size_t tokens_before_stop() const;

 private:
  std::string keep(std::string part) {
    text_ += part;
    return part;
  }
  struct End {
    size_t text;  // bytes of whole characters up to and with the token
    bool whole;   // it does not end amid a character
  };

  const Tokenizer* tokenizer_;
  Utf8Stream utf8_;
  StopMatcher matcher_;
  std::string text_;
  std::vector<End> ends_;  // one a token
};

}  // namespace krait::text
