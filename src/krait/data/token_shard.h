// TokenShard: a file of token ids, cut into documents, mapped and checked.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "krait/io/mapped_file.h"

namespace krait::data {

// How much of a shard is read when it is opened. kStructure leaves the ids to those who read them: they check what they
// take, but only kEverything compares the checksum.
enum class Verify : uint8_t { kStructure, kEverything };

class TokenShard {
 public:
  // Throws kBadData: not a shard, another version, truncated, contradictory, a wrong checksum, an id outside the
  // vocabulary; kFailed if the file cannot be read.
  explicit TokenShard(const std::filesystem::path&, Verify = Verify::kEverything);

  const std::filesystem::path& path() const { return file_->path(); }
  int64_t n_tokens() const { return n_tokens_; }
  int64_t n_documents() const { return n_documents_; }
  int64_t vocab_size() const { return vocab_size_; }
  uint64_t tokenizer_hash() const { return tokenizer_hash_; }
  uint64_t checksum() const { return checksum_; }  // of the payload, as the header says
  bool has_mask() const { return mask_ != nullptr; }

  // First token of document d; n_tokens() for d = n_documents(). No document is empty.
  int64_t document_begin(int64_t d) const;

  // Tokens first .. first + size - 1, which must exist. Throws kBadData on an id outside the vocabulary.
  void read_ids(int64_t first, std::span<int32_t> out) const;
  // 1 where the token is to be learned, else 0; all 1 without a mask.
  void read_weights(int64_t first, std::span<float> out) const;

 private:
  [[noreturn]] void fail(const std::string& what) const;
  void read_header();
  void check_documents() const;
  void check_payload() const;

  std::shared_ptr<const io::MappedFile> file_;
  int64_t n_tokens_ = 0, n_documents_ = 0, vocab_size_ = 0;
  uint64_t tokenizer_hash_ = 0, checksum_ = 0;
  int id_bytes_ = 2;
  const std::byte *documents_ = nullptr, *ids_ = nullptr, *mask_ = nullptr;
};

}  // namespace krait::data
