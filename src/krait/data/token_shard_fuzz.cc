// Fuzzes the reader of shards. Checksums are put right in a second try: without that hardly anything would pass them.
#include <xxhash.h>

#include <cstring>
#include <vector>

#include "krait/data/shard_format.h"
#include "krait/data/token_shard.h"
#include "krait/io/fuzz_input.h"

namespace {

using namespace krait::data;

// What the structure check lets pass must be readable, ids and mask to the last token.
void read_all(const TokenShard& shard) {
  for (int64_t d = 0; d < shard.n_documents(); ++d) {
    const int64_t begin = shard.document_begin(d);
    const auto n = static_cast<size_t>(shard.document_begin(d + 1) - begin);
    std::vector<int32_t> ids(n);
    std::vector<float> weights(n);
    shard.read_weights(begin, weights);
    shard.read_ids(begin, ids);
  }
}

std::vector<uint8_t> sealed(const uint8_t* data, size_t size) {
  std::vector<uint8_t> bytes(data, data + size);
  ShardHeader h;
  if (size < sizeof h) return bytes;
  std::memcpy(&h, data, sizeof h);
  h.magic = kShardMagic;
  h.version = kShardVersion;
  h.reserved = {};
  h.payload_checksum = XXH3_64bits(data + sizeof h, size - sizeof h);
  h.header_checksum = XXH3_64bits(&h, offsetof(ShardHeader, header_checksum));
  std::memcpy(bytes.data(), &h, sizeof h);
  return bytes;
}

void try_to_read(const uint8_t* data, size_t size) {
  const krait::io::FuzzFile file(data, size);
  for (const Verify verify : {Verify::kStructure, Verify::kEverything}) {
    krait::io::expect_value_or_bad_data([&] { read_all(TokenShard(file.path(), verify)); });
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try_to_read(data, size);
  const std::vector<uint8_t> bytes = sealed(data, size);
  try_to_read(bytes.data(), bytes.size());
  return 0;
}
