#include "krait/data/shard_writer.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "krait/core/error.h"
#include "krait/data/shard_format.h"
#include "krait/io/atomic_file.h"

namespace krait::data {

namespace fs = std::filesystem;

ShardWriter::ShardWriter(fs::path folder, const ShardWriterOptions& options)
    : folder_(std::move(folder)), options_(options) {
  if (options.vocab_size < 1 || options.vocab_size > int64_t{1} << 31) {
    fail_usage(fmt::format("[shard] a vocabulary of {}", options.vocab_size));
  }
  if (options.shard_tokens < 1) fail_usage(fmt::format("[shard] shards of {} tokens", options.shard_tokens));
  std::error_code ec;
  fs::create_directories(folder_, ec);
  if (ec) throw Error(ErrorCode::kFailed, fmt::format("[shard] {}: {}", folder_.string(), ec.message()));
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (entry.path().extension() != kShardSuffix) continue;
    throw Error(ErrorCode::kFailed, fmt::format("[shard] {} has shards already ({}): they would mix", folder_.string(),
                                                entry.path().filename().string()));
  }
}

void ShardWriter::add(std::span<const int32_t> ids, std::span<const uint8_t> learned) {
  if (ids.empty()) return;
  if (!learned.empty() && learned.size() != ids.size()) {
    throw Error(ErrorCode::kInternal, fmt::format("[shard] {} ids, {} flags", ids.size(), learned.size()));
  }
  const auto wrong = std::ranges::find_if(ids, [&](int32_t id) { return id < 0 || id >= options_.vocab_size; });
  if (wrong != ids.end()) fail_data(fmt::format("[shard] id {}, the vocabulary has {}", *wrong, options_.vocab_size));
  if (!ids_.empty() && static_cast<int64_t>(ids_.size() + ids.size()) > options_.shard_tokens) flush();
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  learned_.resize(ids_.size(), 1);
  std::ranges::copy(learned, learned_.end() - static_cast<std::ptrdiff_t>(learned.size()));
  documents_.push_back(ids_.size());
  ++n_documents_;
}

void ShardWriter::finish() {
  if (!ids_.empty()) flush();
}

void ShardWriter::flush() {
  ShardHeader h;
  h.id_bits = options_.vocab_size <= 1 << 16 ? 16 : 32;
  h.n_tokens = ids_.size();
  h.n_documents = documents_.size() - 1;
  h.vocab_size = static_cast<uint64_t>(options_.vocab_size);
  h.tokenizer_hash = options_.tokenizer_hash;
  const bool masked = std::ranges::find(learned_, uint8_t{0}) != learned_.end();
  h.flags = masked ? kShardHasMask : 0;
  const std::string bytes = payload(static_cast<int>(h.id_bits), masked);
  h.payload_checksum = XXH3_64bits(bytes.data(), bytes.size());
  h.header_checksum = XXH3_64bits(&h, offsetof(ShardHeader, header_checksum));
  io::AtomicFile file(folder_ / fmt::format("shard-{:05}{}", n_shards_, kShardSuffix));
  file.write(&h, sizeof h);
  file.write(bytes);
  file.commit();
  ++n_shards_;
  written_ += static_cast<int64_t>(ids_.size());
  ids_.clear();
  learned_.clear();
  documents_.assign(1, 0);
}

// What follows the header.
std::string ShardWriter::payload(int id_bits, bool masked) const {
  ShardHeader h;
  h.id_bits = static_cast<uint32_t>(id_bits);
  h.n_tokens = ids_.size();
  h.n_documents = documents_.size() - 1;
  h.flags = masked ? kShardHasMask : 0;
  const ShardLayout l = shard_layout(h);
  std::string out(l.end - sizeof h, '\0');
  const auto at = [&](uint64_t offset) { return out.data() + (offset - sizeof h); };
  std::memcpy(at(l.documents), documents_.data(), documents_.size() * sizeof(uint64_t));
  if (id_bits == 32) {
    std::memcpy(at(l.ids), ids_.data(), ids_.size() * sizeof(int32_t));
  } else {
    for (size_t i = 0; i < ids_.size(); ++i) {
      const auto id = static_cast<uint16_t>(ids_[i]);
      std::memcpy(at(l.ids) + i * sizeof id, &id, sizeof id);
    }
  }
  for (size_t i = 0; masked && i < learned_.size(); ++i) {
    if (learned_[i] != 0) at(l.mask)[i / 8] = static_cast<char>(at(l.mask)[i / 8] | 1 << (i % 8));
  }
  return out;
}

}  // namespace krait::data
