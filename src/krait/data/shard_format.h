// The layout of a shard file (docs/formats.md, "Token shards").
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

namespace krait::data {

inline constexpr std::array<char, 8> kShardMagic = {'K', 'R', 'A', 'I', 'T', 'T', 'K', '\n'};
inline constexpr uint32_t kShardVersion = 1;
inline constexpr uint64_t kShardHasMask = 1;  // of flags; all others are refused
inline constexpr uint64_t kShardAlignment = 64;
inline constexpr const char* kShardSuffix = ".ktok";

struct ShardHeader {
  std::array<char, 8> magic = kShardMagic;
  uint32_t version = kShardVersion;
  uint32_t id_bits = 16;  // 16 or 32, unsigned
  uint64_t n_tokens = 0;
  uint64_t n_documents = 0;
  uint64_t vocab_size = 0;
  uint64_t tokenizer_hash = 0;
  uint64_t flags = 0;
  uint64_t payload_checksum = 0;  // XXH3-64 of all bytes after the header
  std::array<uint64_t, 7> reserved{};
  uint64_t header_checksum = 0;  // XXH3-64 of the 120 bytes before
};
static_assert(sizeof(ShardHeader) == 128 && offsetof(ShardHeader, header_checksum) == 120);

// After the header: where each document begins, u64 [n_documents + 1]; the ids [n_tokens]; the mask, a bit a token from
// the lowest on. Each part begins at a multiple of 64 bytes, zeros before it.
struct ShardLayout {
  uint64_t documents = 0, ids = 0, mask = 0, end = 0;  // offsets in the file
};

// The counts must be small enough for a file: at most 2^56.
constexpr ShardLayout shard_layout(const ShardHeader& h) {
  const auto aligned = [](uint64_t at) { return (at + kShardAlignment - 1) / kShardAlignment * kShardAlignment; };
  ShardLayout l;
  l.documents = sizeof(ShardHeader);
  l.ids = aligned(l.documents + 8 * (h.n_documents + 1));
  l.mask = aligned(l.ids + h.n_tokens * (h.id_bits / 8));
  l.end = (h.flags & kShardHasMask) != 0 ? l.mask + (h.n_tokens + 7) / 8 : l.ids + h.n_tokens * (h.id_bits / 8);
  return l;
}

}  // namespace krait::data
