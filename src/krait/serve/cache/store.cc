#include "krait/serve/cache/store.h"

#include "krait/core/error.h"

namespace krait::serve {

void check_store_key(const std::string& key) {
  constexpr size_t kLongest = 200;
  size_t segment = 0;
  bool good = true;
  for (const char c : key) {
    const bool word =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    good = good && (word ? segment < kLongest : c == '/' && segment > 0);
    segment = c == '/' ? 0 : segment + 1;
  }
  if (!good || segment == 0) throw Error(ErrorCode::kInternal, "[store] no such key can be: '" + key + "'");
}

}  // namespace krait::serve
