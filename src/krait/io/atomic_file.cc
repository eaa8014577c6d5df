#include "krait/io/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "krait/core/error.h"

namespace krait::io {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPolledBytes = size_t{16} << 20;  // at most this much is written between two polls

[[noreturn]] void fail(const fs::path& path, const std::string& doing, int error) {
  throw Error(ErrorCode::kFailed, fmt::format("[write] {}: {}: {}", path.string(), doing, std::strerror(error)));
}

// The file that a chain of symbolic links ends at: renaming onto a link would replace the link.
fs::path resolve(const fs::path& path) {
  std::error_code ec;
  if (!fs::is_symlink(path, ec)) return path;
  fs::path target = fs::canonical(path, ec);
  if (ec) fail(path, "the symbolic link leads nowhere", ec.value());
  return target;
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

fs::path temporary_name(const fs::path& path) {
  static std::atomic<unsigned> counter{0};
  constexpr size_t kKept = 200;  // of a name of 255 bytes, the most there can be, to have room for the rest
  const auto name = fmt::format(".{}.{}-{}.tmp", path.filename().string().substr(0, kKept), ::getpid(), counter++);
  return folder_of(path) / name;
}

void sync_folder(const fs::path& path) {
  const int fd = ::open(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail(path, "cannot open its folder", errno);
  const int rc = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (rc != 0 && error != EINVAL && error != EROFS)
    fail(path, "cannot sync its folder", error);  // EINVAL: has no fsync
}

}  // namespace

AtomicFile::AtomicFile(const fs::path& path, Poll poll) : path_(resolve(path)), poll_(std::move(poll)) {
  struct stat st{};
  const bool exists = ::stat(path_.c_str(), &st) == 0;
  if (exists && !S_ISREG(st.st_mode)) {  // never rename over a folder or a device
    throw Error(ErrorCode::kFailed, fmt::format("[write] {}: it exists and is not a regular file", path_.string()));
  }
  // Without a name a killed process leaves nothing behind. Not every file system can, and naming it later needs /proc.
  if (::access("/proc/self/fd", X_OK) == 0) {
    fd_ = ::open(folder_of(path_).c_str(), O_WRONLY | O_TMPFILE | O_CLOEXEC, 0644);
  }
  // A name left behind by a killed process of the same number is not ours to touch: take the next.
  while (fd_ < 0) {
    temporary_ = temporary_name(path_);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd_ < 0 && errno != EEXIST) break;
  }
  if (fd_ < 0) fail(path_, "cannot create a file in its folder", errno);
  if (exists && ::fchmod(fd_, st.st_mode & 0777) != 0) {
    const int error = errno;
    ::close(fd_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
    fail(path_, "cannot set permissions", error);
  }
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  if (fd_ < 0) throw Error(ErrorCode::kInternal, "[write] " + path_.string() + ": write after commit");
  const auto* p = static_cast<const std::byte*>(data);
  while (bytes > 0) {
    if (poll_) poll_();
    const ssize_t n = ::write(fd_, p, poll_ ? std::min(bytes, kPolledBytes) : bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path_, fmt::format("cannot write at byte {}", position_), errno);
    p += n;
    bytes -= static_cast<size_t>(n);
    position_ += static_cast<size_t>(n);
  }
}

void AtomicFile::pad_to(size_t alignment) {
  static constexpr std::array<std::byte, 256> kZeros{};
  size_t missing = (alignment - position_ % alignment) % alignment;
  while (missing > 0) {
    const size_t n = std::min(missing, kZeros.size());
    write(kZeros.data(), n);
    missing -= n;
  }
}

void AtomicFile::commit() {
  if (fd_ < 0) throw Error(ErrorCode::kInternal, "[write] " + path_.string() + ": committed twice");
  if (::fsync(fd_) != 0) fail(path_, "cannot sync", errno);
  if (poll_) poll_();
  if (temporary_.empty()) {
    const std::string self = fmt::format("/proc/self/fd/{}", fd_);
    int rc = -1;
    do {
      temporary_ = temporary_name(path_);
      rc = ::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, temporary_.c_str(), AT_SYMLINK_FOLLOW);
    } while (rc != 0 && errno == EEXIST);
    if (rc != 0) {
      const int error = errno;
      temporary_.clear();
      fail(path_, "cannot name the file", error);
    }
  }
  if (::close(std::exchange(fd_, -1)) != 0) fail(path_, "cannot close", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail(path_, "cannot rename into place", errno);
  temporary_.clear();
  sync_folder(path_);
}

void write_file(const fs::path& path, std::string_view content) {
  AtomicFile f(path);
  f.write(content);
  f.commit();
}

}  // namespace krait::io
