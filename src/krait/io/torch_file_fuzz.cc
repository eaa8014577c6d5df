#include <span>

#include "krait/io/fuzz_input.h"
#include "krait/io/pickle.h"
#include "krait/io/torch_file.h"

// The bytes as a pickle by itself, where mutations meet no checksum, and as an archive.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace krait::io;
  const auto some = [](const std::string& name) { return name.starts_with("torch."); };
  expect_value_or_bad_data([&] { const Pickle p(std::as_bytes(std::span(data, size)), some, "fuzz"); });
  const FuzzFile file(data, size);
  expect_value_or_bad_data([&] {
    volatile unsigned sum = 0;
    for (const auto& [name, t] : read_torch(file.path())) {
      for (int64_t i = 0; i < t.nbytes(); ++i) sum = sum + static_cast<unsigned>(t.bytes()[i]);
    }
  });
  return 0;
}
