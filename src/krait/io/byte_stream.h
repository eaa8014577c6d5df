// ByteStream: a file, pipe or standard input read from front to back; gzip and Zstandard are unpacked on the way, known
// by their first bytes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "krait/io/atomic_file.h"

namespace krait::io {

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Up to `bytes` bytes, 0 only at the end. Throws kFailed if the file cannot be read, kBadData if what is packed is
  // corrupt or truncated.
  virtual size_t read(char* to, size_t bytes) = 0;
  virtual int64_t consumed() const = 0;  // bytes of the file itself
};

// "-" is standard input. `poll` is called before every read of the file and when a signal ends one; what it throws ends
// the reading. Throws kFailed, also on a folder.
std::unique_ptr<ByteStream> open_byte_stream(const std::string& path, const Poll& poll = {});

// Everything, or one line without its newline (false at the end), through a buffer of its own.
class LineReader {
 public:
  explicit LineReader(ByteStream& stream) : stream_(stream) {}
  bool next(std::string& line);
  std::string rest();

 private:
  bool fill();
  ByteStream& stream_;
  std::string buffer_;
  size_t at_ = 0;
};

}  // namespace krait::io
