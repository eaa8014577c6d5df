// Any text as a chat template: refused with kBadData, or rendered within the limits.
#include "krait/text/chat_template.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "krait/core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace krait;
  try {
    const auto t = text::compile_chat_template({reinterpret_cast<const char*>(data), size}, "<s>", "</s>");
    t->render({{"system", "Be nice."}, {"user", "Hi\n \xC3\xA9"}, {"assistant", "Yes"}}, true);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kBadData) std::abort();
  }
  return 0;
}
