// Packing: the documents of a shard in bins of at most L tokens, found again by number without a table of all bins.
#pragma once
#include <cstdint>
#include <vector>

#include "krait/data/token_shard.h"

namespace krait::data {

// A sequence: n inputs from token `begin` of the shard on; its targets are the tokens one later. Of a document the last
// token is a target only.
struct Piece {
  int64_t begin = 0, n = 0;
  bool operator==(const Piece&) const = default;
};

enum class Cut : uint8_t {
  // Bins are filled in order. A document of at most L inputs stays whole (one that does not fit begins the next bin), a
  // longer one is cut where bins end.
  kWherePacked,
  // A bin is a window of exactly L inputs; what is left at the end of a document is left out.
  kFullWindows,
};

class Packing {
 public:
  Packing(const TokenShard&, int64_t length, Cut);  // keeps a reference to the shard

  int64_t n_bins() const { return n_bins_; }
  std::vector<Piece> bin(int64_t i) const;

 private:
  struct Place {
    int64_t document = 0, offset = 0;  // the next input
  };
  std::vector<Piece> next_bin(Place&) const;  // empty at the end
  int64_t inputs_of(int64_t document) const;
  void skip_finished(Place&) const;

  static constexpr int64_t kStride = 64;  // bins between two places that are remembered
  const TokenShard* shard_;
  int64_t length_, n_bins_ = 0;
  Cut cut_;
  std::vector<Place> places_;
};

}  // namespace krait::data
