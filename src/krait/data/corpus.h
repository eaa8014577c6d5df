// Corpus: the shards of a data set, one after the other.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "krait/data/token_shard.h"

namespace krait::data {

class Corpus {
 public:
  // `places`: shards, folders (all their *.ktok) and patterns ("data/part-*.ktok"), in this order, the files of one
  // place by name. Throws kBadData where a place has no shards, or shards come from different tokenizers.
  explicit Corpus(const std::vector<std::string>& places, Verify = Verify::kEverything);

  int64_t n_tokens() const { return begin_.back(); }
  int64_t n_documents() const;
  int64_t vocab_size() const { return shards_.front().vocab_size(); }
  uint64_t tokenizer_hash() const { return shards_.front().tokenizer_hash(); }
  uint64_t fingerprint() const;  // of the content and its order
  const std::vector<TokenShard>& shards() const { return shards_; }
  int64_t shard_begin(size_t shard) const { return begin_[shard]; }  // its first token; n_tokens() after the last

  // Tokens first .. first + size - 1 of the whole, which must exist.
  void read_ids(int64_t first, std::span<int32_t> out) const;
  void read_weights(int64_t first, std::span<float> out) const;

 private:
  template <class T, class Read>
  void read(int64_t first, std::span<T> out, Read read_shard) const;

  std::vector<TokenShard> shards_;
  std::vector<int64_t> begin_{0};
};

}  // namespace krait::data
