// Loader: the samples of a corpus in an order that depends on the seed alone.
#pragma once
#include <cstdint>
#include <vector>

#include "krait/data/batch_source.h"
#include "krait/data/corpus.h"
#include "krait/data/packing.h"

namespace krait::data {

enum class LoaderMode : uint8_t {
  kContiguous,  // windows of L over all documents joined; what is left at the end is left out
  kPacked,      // a sample is up to L tokens of documents, each a sequence of its own (Packing, kWherePacked)
  kWindows,     // windows of L within each document: how the losses of held-out books are measured
};

struct LoaderOptions {
  LoaderMode mode = LoaderMode::kContiguous;
  int64_t length = 1024;  // L
  bool shuffle = true;    // a new permutation each epoch; without it in order, for validation
  uint64_t seed = 0;
};

class Loader final : public BatchSource {
 public:
  // Keeps a reference to the corpus. Throws kUsage on a length below 1, kBadData where the corpus has no sample.
  Loader(const Corpus&, const LoaderOptions&);

  int64_t vocab_size() const override { return corpus_->vocab_size(); }
  int64_t epoch_samples() const override { return n_samples_; }
  uint64_t fingerprint() const override;
  Batch samples(Position first, int64_t n) const override;

 private:
  void add_sample(int64_t sample, Batch&) const;
  void add_sequence(int64_t first, int64_t n, Batch&) const;

  const Corpus* corpus_;
  LoaderOptions options_;
  std::vector<Packing> packings_;   // of each shard; none in kContiguous
  std::vector<int64_t> bin_begin_;  // first sample of each shard, and the end
  int64_t n_samples_ = 0;
};

}  // namespace krait::data
