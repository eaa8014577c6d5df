// A file mapped read-only. Tensors view it and keep it alive.
#pragma once
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

namespace krait::io {

class MappedFile {
 public:
  // Throws kFailed if the file cannot be opened or mapped; an empty file maps to an empty span.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path&);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  const std::filesystem::path& path() const { return path_; }

  // Lets the system take back the memory of the whole pages within [data, data + bytes) if they lie in a mapped file;
  // memory of any other kind is left alone. The bytes stay readable: they are fetched from the file again.
  static void release_pages(const void* data, size_t bytes);

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace krait::io
