#include "krait/io/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>

#include "krait/core/error.h"

namespace krait::io {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const char* doing, const char* reason) {
  throw Error(ErrorCode::kFailed, fmt::format("[read] cannot {} {}: {}", doing, path.string(), reason));
}

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

// One zero page beyond the file's last: kernels may read a vector past the end of a tensor.
size_t mapping_size(size_t bytes) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page + page;
}

// Where files are mapped now: first byte -> bytes.
struct Mappings {
  std::mutex mutex;
  std::map<uintptr_t, size_t> files;
};
Mappings& mappings() {
  static Mappings& m = *new Mappings;  // outlives files mapped by static objects
  return m;
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a pipe by mistake must fail below, not wait.
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) fail(path, "open", std::strerror(errno));
  struct stat st{};
  if (::fstat(file.fd, &st) != 0) fail(path, "stat", std::strerror(errno));
  if (!S_ISREG(st.st_mode)) fail(path, "map", S_ISDIR(st.st_mode) ? "it is a folder" : "it is not a regular file");

  std::shared_ptr<MappedFile> m(new MappedFile);
  m->path_ = path;
  const auto size = static_cast<size_t>(st.st_size);
  if (size == 0) return m;
  void* whole = ::mmap(nullptr, mapping_size(size), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (whole == MAP_FAILED) fail(path, "map", std::strerror(errno));
  m->data_ = static_cast<const std::byte*>(whole);
  m->size_ = size;
  if (::mmap(whole, size, PROT_READ, MAP_PRIVATE | MAP_FIXED, file.fd, 0) == MAP_FAILED) {
    fail(path, "map", std::strerror(errno));
  }
  const std::lock_guard lock(mappings().mutex);
  mappings().files[reinterpret_cast<uintptr_t>(whole)] = size;
  return m;
}

void MappedFile::release_pages(const void* data, size_t bytes) {
  const std::lock_guard lock(mappings().mutex);  // held on: the file must not go meanwhile
  const auto first = reinterpret_cast<uintptr_t>(data);
  auto file = mappings().files.upper_bound(first);
  if (file == mappings().files.begin()) return;
  --file;
  if (first + bytes > file->first + file->second) return;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t from = (first + page - 1) / page * page, to = (first + bytes) / page * page;
  if (from < to) ::madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  const std::lock_guard lock(mappings().mutex);
  mappings().files.erase(reinterpret_cast<uintptr_t>(data_));
  ::munmap(const_cast<std::byte*>(data_), mapping_size(size_));
}

}  // namespace krait::io
