// Any bytes as a SentencePiece model and as a character map: refused with kBadData, or usable.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "krait/core/error.h"
#include "krait/text/charsmap.h"
#include "krait/text/spm_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace krait;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    text::Charsmap(bytes).longest("fi \xEF\xAC\x81 A\xCC\x80");
  } catch (const Error&) {
  }
  try {
    const text::SpmTokenizer t(text::parse_spm_model(bytes, "fuzz"), {});
    for (const std::string_view s :
         {std::string_view(" the  king \xEF\xAC\x81\xE2\x80\xA6 <unk> abc\n"), bytes.substr(0, 200)}) {
      for (const int32_t id : t.encode(s)) {
        if (id < 0 || id >= t.vocab_size()) std::abort();
        t.token_bytes(id, true);
      }
    }
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kBadData) std::abort();
  }
  return 0;
}
