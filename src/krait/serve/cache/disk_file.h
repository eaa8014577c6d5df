// Files and folders as DiskStore needs them: every failure throws Error kFailed with path and reason.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace krait::serve::disk {

[[noreturn]] void fail(const std::string& path, const std::string& doing, int error);

class File {
 public:
  File(const std::filesystem::path& path, int flags);  // no error if it does not exist: exists() tells
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  bool exists() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  size_t size() const;
  std::string read(size_t from, size_t n) const;  // less at the end of the file
  void write(size_t at, std::string_view s);
  void cut(size_t size);
  void sync();

 private:
  std::string path_;
  int fd_;
};

void make_folder(const std::filesystem::path& path);                     // with those above it; they stay after a crash
void set_time(const std::filesystem::path& path, int64_t unix_seconds);  // of its last use; no error if it has gone
void remove_file(const std::filesystem::path& path);                     // no error if it is not there

}  // namespace krait::serve::disk
