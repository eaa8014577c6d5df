// Utf8Stream: bytes in, whole characters out. What a streaming decoder prints through.
#pragma once
#include <string>
#include <string_view>

namespace krait::text {

class Utf8Stream {
 public:
  // Appends bytes and returns what is complete. Bytes that can never become a character come out as U+FFFD, one for
  // each maximal ill-formed part (Unicode 15, §3.9); an incomplete character waits.
  std::string push(std::string_view bytes);
  bool whole() const { return pending_.empty(); }  // nothing waits
  std::string finish();                            // what is left, an incomplete character as U+FFFD

 private:
  std::string pending_;
};

}  // namespace krait::text
