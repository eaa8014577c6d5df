// Zip archives as NumPy and PyTorch write them: stored and deflated members, zip64. Everything a file claims is checked
// against the file before it is used.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace krait::io {

struct ZipEntry {
  static constexpr uint16_t kStored = 0, kDeflated = 8;
  std::string name;
  uint16_t method = kStored;     // kStored or kDeflated
  uint64_t offset = 0;           // of the data (not of its header) in the file
  uint64_t compressed_size = 0;  // bytes in the file
  uint64_t size = 0;             // bytes of the content; equal to compressed_size when stored
  uint32_t crc = 0;              // CRC-32 of the content
};

// True if the bytes begin like an archive with members.
bool looks_like_zip(std::span<const std::byte> file);

// The members (folders left out) in the order of the central directory. `what` names the file in messages. One kBadData
// lists every problem: members outside the file or over each other, local headers that contradict the directory,
// duplicate names, encryption, unknown methods, and sizes that only a zip bomb would claim.
std::vector<ZipEntry> list_zip(std::span<const std::byte> file, const std::string& what);

// The bytes of a stored member, in place; throws kBadData if it is deflated. The CRC is not checked.
std::span<const std::byte> stored_bytes(std::span<const std::byte> file, const ZipEntry&, const std::string& what);

// The content of a member, inflated if need be; throws kBadData if it is damaged (length, CRC).
std::vector<std::byte> extract_zip(std::span<const std::byte> file, const ZipEntry&, const std::string& what);

}  // namespace krait::io
