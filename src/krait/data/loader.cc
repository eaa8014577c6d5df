#include "krait/data/loader.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

#include "krait/core/error.h"
#include "krait/data/permutation.h"

namespace krait::data {

Loader::Loader(const Corpus& corpus, const LoaderOptions& options) : corpus_(&corpus), options_(options) {
  if (options.length < 1) fail_usage(fmt::format("[loader] windows of {} tokens", options.length));
  if (options.mode == LoaderMode::kContiguous) {
    n_samples_ = std::max<int64_t>(corpus.n_tokens() - 1, 0) / options.length;
  } else {
    const Cut cut = options.mode == LoaderMode::kPacked ? Cut::kWherePacked : Cut::kFullWindows;
    for (const TokenShard& shard : corpus.shards()) {
      bin_begin_.push_back(n_samples_);
      packings_.emplace_back(shard, options.length, cut);
      n_samples_ += packings_.back().n_bins();
    }
    bin_begin_.push_back(n_samples_);
  }
  if (n_samples_ > 0) return;
  fail_data(fmt::format("[loader] {} tokens in {} documents make no sample of {} tokens and their targets",
                        corpus.n_tokens(), corpus.n_documents(), options.length));
}

uint64_t Loader::fingerprint() const {
  const uint64_t parts[] = {corpus_->fingerprint(), static_cast<uint64_t>(options_.mode),
                            static_cast<uint64_t>(options_.length), options_.shuffle ? 1u : 0u, options_.seed};
  return XXH3_64bits(parts, sizeof parts);
}

Batch Loader::samples(Position first, int64_t n) const {
  Batch batch;
  for (int64_t i = 0; i < n; ++i) {
    const Position p = advance(first, i);
    const Permutation order(n_samples_, options_.seed, static_cast<uint64_t>(p.epoch));
    add_sample(options_.shuffle ? order.at(p.index) : p.index, batch);
  }
  return batch;
}

void Loader::add_sample(int64_t sample, Batch& batch) const {
  if (packings_.empty()) return add_sequence(sample * options_.length, options_.length, batch);
  const auto shard = static_cast<size_t>(std::ranges::upper_bound(bin_begin_, sample) - bin_begin_.begin() - 1);
  for (const Piece& piece : packings_[shard].bin(sample - bin_begin_[shard])) {
    add_sequence(corpus_->shard_begin(shard) + piece.begin, piece.n, batch);
  }
}

void Loader::add_sequence(int64_t first, int64_t n, Batch& batch) const {
  std::vector<int32_t> ids(static_cast<size_t>(n) + 1);
  std::vector<float> weights(static_cast<size_t>(n));
  corpus_->read_ids(first, ids);
  corpus_->read_weights(first + 1, weights);  // of the targets
  batch.add(std::span(ids).first(weights.size()), std::span(ids).subspan(1), weights);
}

}  // namespace krait::data
