#include "krait/text/token_text.h"

namespace krait::text {

std::string TokenText::push(int32_t id) {
  const std::string whole = utf8_.push(tokenizer_->is_special(id) ? "" : tokenizer_->token_bytes(id));
  ends_.push_back({(ends_.empty() ? 0 : ends_.back().text) + whole.size(), utf8_.whole()});
  return keep(matcher_.push(whole));
}

std::string TokenText::finish() {
  std::string out = matcher_.push(utf8_.finish());
  out += matcher_.finish();
  return keep(std::move(out));
}

size_t TokenText::tokens_before_stop() const {
  size_t n = ends_.size();
  if (stop() == nullptr) return n;
  while (n > 0 && (ends_[n - 1].text > text_.size() || !ends_[n - 1].whole)) --n;
  return n;
}

}  // namespace krait::text
