#include "krait/models/slot_store.h"

#include <cstring>

namespace krait {

SlotStore::SlotStore(std::vector<StateSpec> specs, int64_t n_slots) : specs_(std::move(specs)), n_slots_(n_slots) {
  for (const StateSpec& spec : specs_) {
    StateView view;
    for (const StateTensorSpec& t : spec) {
      std::vector<int64_t> dims{n_slots};
      dims.insert(dims.end(), t.shape.dims().begin(), t.shape.dims().end());
      view.push_back(Tensor::zeros(Shape(dims), t.dtype));
    }
    blocks_.push_back(std::move(view));
  }
}

void SlotStore::copy_slot(int64_t from, int64_t to) {
  for (StateView& view : blocks_) {
    for (Tensor& t : view) {
      const Tensor src = slot_of(t, from);
      Tensor dst = slot_of(t, to);
      std::memcpy(dst.bytes(), src.bytes(), static_cast<size_t>(src.nbytes()));
    }
  }
}

SlotStore SlotStore::clone() const {
  SlotStore r(specs_, n_slots_);
  r.copy_from(*this);
  return r;
}

void SlotStore::copy_from(const SlotStore& other) {
  for (size_t b = 0; b < blocks_.size(); ++b) {
    for (size_t t = 0; t < blocks_[b].size(); ++t) {
      const Tensor& src = other.blocks_[b][t];
      std::memcpy(blocks_[b][t].bytes(), src.bytes(), static_cast<size_t>(src.nbytes()));
    }
  }
}

int64_t SlotStore::bytes_per_slot(const std::vector<StateSpec>& specs) {
  int64_t n = 0;
  for (const StateSpec& spec : specs)
    for (const StateTensorSpec& t : spec) n += t.shape.numel() * size_of(t.dtype);
  return n;
}

}  // namespace krait
