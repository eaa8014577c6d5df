#include <cstdlib>

#include "krait/io/fuzz_input.h"
#include "krait/io/gguf.h"

// Tensors of a file that was accepted lie inside it and do not overlap.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace krait::io;
  const FuzzFile file(data, size);
  expect_value_or_bad_data([&] {
    size_t total = 0;
    volatile unsigned sum = 0;
    const auto g = Gguf::open(file.path());
    for (const auto& [name, t] : g->tensors()) {
      for (int64_t i = 0; i < t.nbytes(); ++i) sum = sum + static_cast<unsigned>(t.bytes()[i]);
      total += static_cast<size_t>(t.nbytes());
    }
    if (total > size) std::abort();
  });
  return 0;
}
