// Any bytes as a tokenizer.json (up to the first NUL), the rest as text: refused with an error, or encoded to ids of
// the vocabulary that decode again.
#include <cstdlib>

#include "krait/core/error.h"
#include "krait/text/factories.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\0'), input.size());
  try {
    const auto t = krait::text::make_json_tokenizer(input.substr(0, end), "fuzz", {});
    for (const std::string_view text :
         {input.substr(end), std::string_view("Don't  panic,\n\n42 caf\u0065\u0301 <s>\xFF")}) {
      const auto ids = t->encode(text);
      for (const int32_t id : ids) {
        if (id < 0 || id >= t->vocab_size()) std::abort();
        t->is_special(id);
      }
      t->decode(ids, true);
    }
  } catch (const krait::Error&) {
  }
  return 0;
}
