#include "krait/io/fuzz_input.h"
#include "krait/io/npy.h"

namespace {

// Every byte of the result must be readable.
void touch(const krait::Tensor& t) {
  volatile unsigned sum = 0;
  for (int64_t i = 0; i < t.nbytes(); ++i) sum = sum + static_cast<unsigned>(t.bytes()[i]);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace krait::io;
  const FuzzFile file(data, size);
  expect_value_or_bad_data([&] { touch(read_npy(file.path())); });
  expect_value_or_bad_data([&] {
    for (const auto& array : read_npz(file.path())) touch(array.second);
  });
  return 0;
}
