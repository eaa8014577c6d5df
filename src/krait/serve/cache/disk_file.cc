#include "krait/serve/cache/disk_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "krait/core/error.h"

namespace krait::serve::disk {

namespace fs = std::filesystem;

void fail(const std::string& path, const std::string& doing, int error) {
  throw Error(ErrorCode::kFailed, fmt::format("[store] {}: {}: {}", path, doing, std::strerror(error)));
}

File::File(const fs::path& path, int flags) : path_(path.string()), fd_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
  if (fd_ < 0 && errno != ENOENT) fail(path_, "cannot be opened", errno);
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

size_t File::size() const {
  struct stat st{};
  if (::fstat(fd_, &st) != 0) fail(path_, "cannot be examined", errno);
  return static_cast<size_t>(st.st_size);
}

std::string File::read(size_t from, size_t n) const {
  std::string s(n, '\0');
  size_t have = 0;
  while (have < n) {
    const ssize_t got = ::pread(fd_, s.data() + have, n - have, static_cast<off_t>(from + have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(path_, "cannot be read", errno);
    if (got == 0) break;
    have += static_cast<size_t>(got);
  }
  s.resize(have);
  return s;
}

void File::write(size_t at, std::string_view s) {
  while (!s.empty()) {
    const ssize_t n = ::pwrite(fd_, s.data(), s.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path_, "cannot be written", errno);
    at += static_cast<size_t>(n);
    s.remove_prefix(static_cast<size_t>(n));
  }
}

void File::cut(size_t size) {
  if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) fail(path_, "cannot be cut", errno);
}

void File::sync() {
  if (::fdatasync(fd_) != 0) fail(path_, "cannot be synced", errno);
}

void make_folder(const fs::path& path) {
  std::error_code ec;
  if (fs::is_directory(path, ec)) return;
  if (path.has_parent_path()) make_folder(path.parent_path());
  if (!fs::create_directory(path, ec) && ec) fail(path.string(), "cannot be made", ec.value());
  const File above(path.has_parent_path() ? path.parent_path() : fs::path("."), O_RDONLY | O_DIRECTORY);
  if (above.exists() && ::fsync(above.fd()) != 0 && errno != EINVAL) fail(path.string(), "cannot be synced", errno);
}

void set_time(const fs::path& path, int64_t unix_seconds) {
  const timespec t{.tv_sec = unix_seconds, .tv_nsec = 0};
  const std::array<timespec, 2> accessed_modified = {t, t};
  if (::utimensat(AT_FDCWD, path.c_str(), accessed_modified.data(), 0) != 0 && errno != ENOENT) {
    fail(path.string(), "cannot be dated", errno);
  }
}

void remove_file(const fs::path& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) fail(path.string(), "cannot be removed", errno);
}

}  // namespace krait::serve::disk
