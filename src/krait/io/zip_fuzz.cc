#include <cstdlib>
#include <span>

#include "krait/io/fuzz_input.h"
#include "krait/io/zip.h"

// Members of an archive that was accepted lie inside it, and their content has the size that was claimed.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace krait::io;
  const auto file = std::as_bytes(std::span(data, size));
  expect_value_or_bad_data([&] {
    for (const ZipEntry& e : list_zip(file, "fuzz")) {
      if (e.compressed_size > size || e.offset > size - e.compressed_size) std::abort();
      expect_value_or_bad_data([&] {
        if (extract_zip(file, e, "fuzz").size() != e.size) std::abort();
      });
      expect_value_or_bad_data([&] { stored_bytes(file, e, "fuzz"); });
    }
  });
  return 0;
}
