// For tests: documents whose ids tell where they stand, written as shards.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "krait/core/rng.h"
#include "krait/data/shard_writer.h"
#include "krait/io/test_folder.h"

namespace krait::data {

struct TestCorpus {
  std::vector<std::vector<int32_t>> documents;
  std::vector<std::vector<uint8_t>> learned;  // one flag a token
  io::TestFolder folder;

  // Documents of these lengths with running ids modulo `vocab`; `masked`: a random half is not to be learned.
  TestCorpus(const std::vector<int64_t>& lengths, int64_t vocab, int64_t shard_tokens, bool masked = false) {
    ShardWriter writer(folder.path(), {.vocab_size = vocab, .tokenizer_hash = 7, .shard_tokens = shard_tokens});
    Rng rng(1);
    int64_t next = 0;
    for (const int64_t n : lengths) {
      auto& ids = documents.emplace_back();
      auto& flags = learned.emplace_back();
      for (int64_t i = 0; i < n; ++i) {
        ids.push_back(static_cast<int32_t>(next++ % vocab));
        flags.push_back(masked && rng.below(2) == 0 ? 0 : 1);
      }
      writer.add(ids, flags);
    }
    writer.finish();
  }

  std::string place() const { return folder.path().string(); }
  std::vector<int32_t> joined() const {
    std::vector<int32_t> all;
    for (const auto& d : documents) all.insert(all.end(), d.begin(), d.end());
    return all;
  }
};

}  // namespace krait::data
