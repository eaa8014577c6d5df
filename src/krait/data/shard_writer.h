// ShardWriter: documents of token ids into the shards of a corpus.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace krait::data {

struct ShardWriterOptions {
  int64_t vocab_size = 0;
  uint64_t tokenizer_hash = 0;     // of the tokenizer's content; a trainer compares it
  int64_t shard_tokens = 1 << 25;  // a document begins a new shard rather than exceed it, and is never divided
};

// Writes folder/shard-00000.ktok, …, each whole or not at all. A shard is held in memory until it is written.
class ShardWriter {
 public:
  // Throws kUsage on options that make no sense; kFailed where the folder cannot be made, or has shards already.
  ShardWriter(std::filesystem::path folder, const ShardWriterOptions&);

  // One document; empty ones are left out. `learned`: empty (all tokens are) or one flag a token, false where the
  // token is not to be learned (a user's turn).
  void add(std::span<const int32_t> ids, std::span<const uint8_t> learned = {});
  void finish();  // writes the last shard

  int64_t n_tokens() const { return written_ + static_cast<int64_t>(ids_.size()); }
  int64_t n_documents() const { return n_documents_; }
  int64_t n_shards() const { return n_shards_; }

 private:
  void flush();
  std::string payload(int id_bits, bool masked) const;

  std::filesystem::path folder_;
  ShardWriterOptions options_;
  std::vector<int32_t> ids_;
  std::vector<uint8_t> learned_;        // of each token
  std::vector<uint64_t> documents_{0};  // first tokens, and the end
  int64_t written_ = 0, n_documents_ = 0, n_shards_ = 0;
};

}  // namespace krait::data
