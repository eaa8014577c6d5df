// For fuzzers: the input as a file in memory, and a check that a reader either succeeds or complains in our words.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "krait/core/error.h"

namespace krait::io {

class FuzzFile {
 public:
  FuzzFile(const uint8_t* data, size_t size) : fd_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    while (size > 0) {
      const ssize_t n = ::write(fd_, data, size);
      if (n <= 0) std::abort();
      data += n;
      size -= static_cast<size_t>(n);
    }
  }
  ~FuzzFile() { ::close(fd_); }
  FuzzFile(const FuzzFile&) = delete;
  FuzzFile& operator=(const FuzzFile&) = delete;
  std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

// Any other exception than kBadData is a finding: it leaves here and ends the fuzzer.
template <class Action>
void expect_value_or_bad_data(Action action) {
  try {
    action();
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kBadData) throw;
  }
}

}  // namespace krait::io
