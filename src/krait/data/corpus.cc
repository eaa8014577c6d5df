#include "krait/data/corpus.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "krait/core/error.h"
#include "krait/data/shard_format.h"
#include "krait/io/find_files.h"

namespace krait::data {

Corpus::Corpus(const std::vector<std::string>& places, Verify verify) {
  std::set<std::filesystem::path> seen;
  for (const std::string& place : places) {
    const auto files =
        io::find_files(place, false, [](const std::filesystem::path& p) { return p.extension() == kShardSuffix; });
    if (files.empty()) fail_data("[corpus] " + place + ": there are no shards (*.ktok)");
    for (const std::string& file : files) {
      if (!seen.insert(std::filesystem::weakly_canonical(file)).second)
        fail_data("[corpus] " + file + " is named twice");
      shards_.emplace_back(file, verify);
    }
  }
  if (shards_.empty()) fail_data("[corpus] no shards are named");
  const TokenShard& first = shards_.front();
  for (const TokenShard& s : shards_) {
    if (s.vocab_size() != first.vocab_size() || s.tokenizer_hash() != first.tokenizer_hash()) {
      fail_data(fmt::format(
          "[corpus] the shards are of different tokenizers: {} has {:016x} (vocabulary {}), {} has {:016x} ({})",
          first.path().string(), first.tokenizer_hash(), first.vocab_size(), s.path().string(), s.tokenizer_hash(),
          s.vocab_size()));
    }
    begin_.push_back(begin_.back() + s.n_tokens());
  }
}

int64_t Corpus::n_documents() const {
  int64_t n = 0;
  for (const TokenShard& s : shards_) n += s.n_documents();
  return n;
}

uint64_t Corpus::fingerprint() const {
  std::vector<uint64_t> parts{tokenizer_hash()};
  for (const TokenShard& s : shards_) {
    parts.push_back(static_cast<uint64_t>(s.n_tokens()));
    parts.push_back(s.checksum());
  }
  return XXH3_64bits(parts.data(), parts.size() * sizeof(uint64_t));
}

template <class T, class Read>
void Corpus::read(int64_t first, std::span<T> out, Read read_shard) const {
  auto s = static_cast<size_t>(std::ranges::upper_bound(begin_, first) - begin_.begin() - 1);
  while (!out.empty()) {
    const int64_t n = std::min<int64_t>(static_cast<int64_t>(out.size()), begin_[s + 1] - first);
    read_shard(shards_[s], first - begin_[s], out.first(static_cast<size_t>(n)));
    out = out.subspan(static_cast<size_t>(n));
    first = begin_[++s];
  }
}

void Corpus::read_ids(int64_t first, std::span<int32_t> out) const {
  read(first, out, [](const TokenShard& s, int64_t at, std::span<int32_t> part) { s.read_ids(at, part); });
}

void Corpus::read_weights(int64_t first, std::span<float> out) const {
  read(first, out, [](const TokenShard& s, int64_t at, std::span<float> part) { s.read_weights(at, part); });
}

}  // namespace krait::data
