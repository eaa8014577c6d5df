// Writing files so that a reader sees the old content or the whole new one, never a part.
#pragma once
#include <cstddef>
#include <filesystem>
#include <functional>
#include <string_view>

namespace krait::io {

// Called again and again while much is written; what it throws ends the writing.
using Poll = std::function<void()>;

// Written beside `path` without a name (under a temporary one where the file system wants one); commit() syncs and
// renames it into place. Destroyed without commit(): the temporary file is removed and `path` is as it was. Every
// failure (full disk included) throws kFailed.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path, Poll poll = {});
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view s) { write(s.data(), s.size()); }
  void pad_to(size_t alignment);  // zero bytes up to a multiple of `alignment`
  size_t position() const { return position_; }
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  Poll poll_;
  int fd_ = -1;
  size_t position_ = 0;
};

// The whole file at once, atomically.
void write_file(const std::filesystem::path&, std::string_view content);

}  // namespace krait::io
