// Fuzzes the reader of state files. Size and checksum are put right first: without that nothing would pass them.
#include <xxhash.h>

#include <cstring>
#include <string>

#include "krait/core/error.h"
#include "krait/infer/state.h"

namespace {

std::string sealed(const uint8_t* data, size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (size < 32) return bytes;
  constexpr char kBegin[] = "KRAITST\n\1\0\0\0\0\0\0\0";
  std::memcpy(bytes.data(), kBegin, 16);
  const uint64_t total = size;
  std::memcpy(bytes.data() + 16, &total, sizeof total);
  const uint64_t sum = XXH3_64bits(bytes.data(), size - sizeof sum);
  std::memcpy(bytes.data() + size - sizeof sum, &sum, sizeof sum);
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  for (const std::string& bytes : {std::string(reinterpret_cast<const char*>(data), size), sealed(data, size)}) {
    try {
      const krait::State s = krait::parse_state(std::as_bytes(std::span(bytes)), "fuzz");
      std::string again;
      krait::encode_state(s, [&](const void* p, size_t n) { again.append(static_cast<const char*>(p), n); });
      if (again != bytes) __builtin_trap();  // what is accepted means one thing only
    } catch (const krait::Error& e) {
      if (e.code() != krait::ErrorCode::kBadData) __builtin_trap();
    }
  }
  return 0;
}
