#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "krait/io/fuzz_input.h"
#include "krait/io/json.h"

// What can be read must be the same after writing and reading it again.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace krait::io;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Json j;
  expect_value_or_bad_data([&] { j = Json::parse(text, "fuzz"); });
  // A bare Infinity is written as an object: one level deeper than it was read.
  if (std::ranges::count_if(text, [](char c) { return c == '[' || c == '{'; }) > 100) return 0;
  const Json again = Json::parse(j.dump(static_cast<int>(size % 3)), "again");
  if (again.dump() != j.dump()) std::abort();
  expect_value_or_bad_data([&] { j.as_double(); });
  expect_value_or_bad_data([&] { j.as_integer(); });
  return 0;
}
