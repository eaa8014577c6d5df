#include "krait/text/utf8_stream.h"

#include "krait/text/utf8.h"

namespace krait::text {

std::string Utf8Stream::push(std::string_view bytes) {
  pending_.append(bytes);
  // Only the last character can be incomplete: it begins within the last three bytes.
  size_t keep = 0;
  for (size_t back = 1; back <= 3 && back <= pending_.size(); ++back) {
    const auto b = static_cast<unsigned char>(pending_[pending_.size() - back]);
    if ((b & 0xC0) == 0x80) continue;
    const Utf8Char c = decode_utf8(std::string_view(pending_).substr(pending_.size() - back));
    if (c.status == Utf8Status::kIncomplete && c.bytes == back) keep = back;
    break;
  }
  std::string out = replace_invalid_utf8(std::string_view(pending_).substr(0, pending_.size() - keep));
  pending_.erase(0, pending_.size() - keep);
  return out;
}

std::string Utf8Stream::finish() {
  std::string out = replace_invalid_utf8(pending_);
  pending_.clear();
  return out;
}

}  // namespace krait::text
