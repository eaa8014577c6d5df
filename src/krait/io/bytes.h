// Little-endian integers at any alignment.
#pragma once
#include <bit>
#include <cstddef>
#include <cstring>

namespace krait::io {

static_assert(std::endian::native == std::endian::little, "file formats are read as they lie in memory");

template <class T>
T load_le(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

}  // namespace krait::io
