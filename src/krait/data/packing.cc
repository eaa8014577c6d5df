#include "krait/data/packing.h"

#include <algorithm>

namespace krait::data {

Packing::Packing(const TokenShard& shard, int64_t length, Cut cut) : shard_(&shard), length_(length), cut_(cut) {
  Place place;
  for (;;) {
    const Place before = place;
    if (next_bin(place).empty()) break;
    if (n_bins_++ % kStride == 0) places_.push_back(before);
  }
}

int64_t Packing::inputs_of(int64_t document) const {
  return shard_->document_begin(document + 1) - shard_->document_begin(document) - 1;
}

void Packing::skip_finished(Place& p) const {
  const int64_t least = cut_ == Cut::kFullWindows ? length_ : 1;  // inputs that make a piece
  while (p.document < shard_->n_documents() && inputs_of(p.document) - p.offset < least) p = {p.document + 1, 0};
}

std::vector<Piece> Packing::next_bin(Place& p) const {
  std::vector<Piece> bin;
  int64_t room = length_;
  for (skip_finished(p); room > 0 && p.document < shard_->n_documents(); skip_finished(p)) {
    const int64_t inputs = inputs_of(p.document);
    if (inputs <= length_ && inputs > room) break;
    const int64_t n = std::min(room, inputs - p.offset);
    bin.push_back({shard_->document_begin(p.document) + p.offset, n});
    p.offset += n;
    room -= n;
  }
  return bin;
}

std::vector<Piece> Packing::bin(int64_t i) const {
  Place place = places_[static_cast<size_t>(i / kStride)];
  for (int64_t skipped = 0; skipped < i % kStride; ++skipped) next_bin(place);
  return next_bin(place);
}

}  // namespace krait::data
