// SlotStore: the state memory of a model: for every sub-block and state tensor, one tensor [n_slots, …].
#pragma once
#include <vector>

#include "krait/mixers/mixer.h"

namespace krait {

class SlotStore {
 public:
  SlotStore() = default;
  // Zeroed. `specs`: one StateSpec a sub-block (Model::state_specs()).
  SlotStore(std::vector<StateSpec> specs, int64_t n_slots);

  int64_t n_slots() const { return n_slots_; }
  int64_t bytes_per_slot() const { return bytes_per_slot(specs_); }
  const std::vector<StateSpec>& specs() const { return specs_; }
  StateView& block(size_t i) { return blocks_[i]; }
  // State tensor `t` of sub-block `block` at `slot`, contiguous, without the slot dimension.
  Tensor at(size_t block, size_t t, int64_t slot) const { return slot_of(blocks_[block][t], slot); }
  void copy_slot(int64_t from, int64_t to);
  SlotStore clone() const;                 // of the same size, with the same content
  void copy_from(const SlotStore& other);  // of the same specs and size

  static int64_t bytes_per_slot(const std::vector<StateSpec>& specs);

 private:
  std::vector<StateSpec> specs_;
  std::vector<StateView> blocks_;
  int64_t n_slots_ = 0;
};

}  // namespace krait
