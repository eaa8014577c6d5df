// StatePool: hands out the slots of a model's state memory. Sequence: one sequence in a slot, which can read tokens,
// fork, be marked and be rewound exactly to its marks.
#pragma once
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "krait/infer/score.h"
#include "krait/infer/state.h"

namespace krait {

// Not thread-safe. Must outlive its leases.
class StatePool {
 public:
  // A slot, until destroyed or moved from.
  class Lease {
   public:
    Lease() = default;
    Lease(Lease&& o) noexcept;
    Lease& operator=(Lease&& o) noexcept;
    ~Lease() { release(); }
    bool held() const { return pool_ != nullptr; }
    int32_t slot() const { return slot_; }
    StatePool& pool() const { return *pool_; }

   private:
    friend class StatePool;
    Lease(StatePool* pool, int32_t slot) : pool_(pool), slot_(slot) {}
    void release() noexcept;
    StatePool* pool_ = nullptr;
    int32_t slot_ = -1;
  };

  StatePool(const Model& model, int64_t n_slots);
  StatePool(const StatePool&) = delete;
  StatePool& operator=(const StatePool&) = delete;

  const Model& model() const { return model_; }
  SlotStore& states() { return states_; }
  int64_t n_slots() const { return states_.n_slots(); }
  int64_t free_slots() const { return static_cast<int64_t>(free_.size()); }

  Lease acquire(int32_t adapter);   // holds the state a sequence begins with; throws kFailed if no slot is free
  Lease fork(const Lease& source);  // holds a copy; throws kFailed if no slot is free

 private:
  int32_t take();
  const Model& model_;
  SlotStore states_;
  std::vector<int32_t> free_;
};

class Sequence {
 public:
  // Without an adapter: with the model's default one.
  explicit Sequence(StatePool& pool) : Sequence(pool, pool.model().default_adapter()) {}  // at position 0
  Sequence(StatePool& pool, int32_t adapter);
  // Goes on from a state; throws kBadData if it is another model's or adapter's.
  Sequence(StatePool& pool, const State& state) : Sequence(pool, state, pool.model().default_adapter()) {}
  Sequence(StatePool& pool, const State&, int32_t adapter);

  int32_t slot() const { return lease_.slot(); }
  int32_t adapter() const { return adapter_; }
  const SequenceHead& head() const { return head_; }
  RngState& rng() { return head_.rng; }
  int64_t position() const { return head_.history.position(); }

  // Reads ids and returns the logits after the last one (head().last_logits; undefined at position 0 if ids is empty).
  const Tensor& read(std::span<const int32_t> ids, int64_t chunk = kPrefillChunk);
  // Records tokens that a batched forward pass has just read into slot(), and the logits f32 [V_pad] after the last:
  // not copied, so that a view of the pass's logits keeps them all, until the next call.
  void advance(std::span<const int32_t> ids, Tensor logits);

  Sequence fork() const;  // without the marks
  State state() const;

  // Keeps the present position; rewind() may come back to it any number of times. Marks live in ordinary memory
  // (mark_bytes()), not in slots, until dropped, passed by a rewind to an earlier one, or destroyed with the sequence.
  void mark();
  std::vector<int64_t> marks() const;  // ascending
  int64_t mark_bytes() const;
  void drop_mark(int64_t position);  // throws kUsage if there is none
  // Puts the sequence back as it was at a mark, bit for bit, random stream included. A recurrent state cannot be undone
  // token by token: throws kUsage, listing the marks, if that position was not kept. The sequence is then unchanged.
  void rewind(int64_t position);

 private:
  Sequence(StatePool::Lease lease, SequenceHead head, int32_t adapter)
      : lease_(std::move(lease)), adapter_(adapter), head_(std::move(head)) {}
  const Model& model() const { return lease_.pool().model(); }

  StatePool::Lease lease_;
  int32_t adapter_ = -1;
  SequenceHead head_;
  std::map<int64_t, State> marks_;
};

}  // namespace krait
