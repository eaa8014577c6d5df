#include "krait/infer/state_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "krait/core/error.h"

namespace krait {

StatePool::Lease::Lease(Lease&& o) noexcept
    : pool_(std::exchange(o.pool_, nullptr)), slot_(std::exchange(o.slot_, -1)) {}

StatePool::Lease& StatePool::Lease::operator=(Lease&& o) noexcept {
  if (this != &o) {
    release();
    pool_ = std::exchange(o.pool_, nullptr);
    slot_ = std::exchange(o.slot_, -1);
  }
  return *this;
}

void StatePool::Lease::release() noexcept {
  if (pool_ != nullptr) pool_->free_.push_back(slot_);  // within the capacity reserved for all slots
  pool_ = nullptr;
}

StatePool::StatePool(const Model& model, int64_t n_slots) : model_(model), states_(model.state_specs(), n_slots) {
  free_.reserve(static_cast<size_t>(n_slots));
  for (int64_t s = n_slots - 1; s >= 0; --s) free_.push_back(static_cast<int32_t>(s));
}

int32_t StatePool::take() {
  if (free_.empty()) throw Error(ErrorCode::kFailed, fmt::format("[state pool] all {} slots are in use", n_slots()));
  const int32_t slot = free_.back();
  free_.pop_back();
  return slot;
}

StatePool::Lease StatePool::acquire(int32_t adapter) {
  Lease lease(this, take());
  model_.reset_state(states_, lease.slot(), adapter);
  return lease;
}

StatePool::Lease StatePool::fork(const Lease& source) {
  Lease lease(this, take());
  states_.copy_slot(source.slot(), lease.slot());
  return lease;
}

Sequence::Sequence(StatePool& pool, int32_t adapter) : lease_(pool.acquire(adapter)), adapter_(adapter) {}

Sequence::Sequence(StatePool& pool, const State& s, int32_t adapter)
    : lease_(pool.acquire(adapter)), adapter_(adapter), head_(s.head) {
  restore(pool.model(), s, pool.states(), slot(), adapter);
}

const Tensor& Sequence::read(std::span<const int32_t> ids, int64_t chunk) {
  while (!ids.empty()) {
    const auto part = ids.first(std::min(ids.size(), static_cast<size_t>(chunk)));
    const auto n = static_cast<int64_t>(part.size());
    const int64_t last = n - 1;
    const SeqSpans spans = SeqSpans::one(n, slot(), adapter_);
    const Tensor logits = model().forward(part, spans, lease_.pool().states(), std::span(&last, 1));
    advance(part, logits.reshape({logits.numel()}));
    ids = ids.subspan(part.size());
  }
  return head_.last_logits;
}

void Sequence::advance(std::span<const int32_t> ids, Tensor logits) {
  head_.history.push(ids);
  head_.last_logits = std::move(logits);
}

Sequence Sequence::fork() const { return {lease_.pool().fork(lease_), head_, adapter_}; }

State Sequence::state() const { return snapshot(model(), lease_.pool().states(), slot(), head_, adapter_); }

void Sequence::mark() { marks_.insert_or_assign(position(), state()); }

std::vector<int64_t> Sequence::marks() const {
  std::vector<int64_t> at;
  for (const auto& [position, state] : marks_) at.push_back(position);
  return at;
}

int64_t Sequence::mark_bytes() const {
  int64_t n = 0;
  for (const auto& [position, state] : marks_) n += state.nbytes();
  return n;
}

void Sequence::drop_mark(int64_t position) {
  if (marks_.erase(position) == 0) fail_usage(fmt::format("[rewind] there is no mark at position {}", position));
}

void Sequence::rewind(int64_t to) {
  const auto kept = marks_.find(to);
  if (kept == marks_.end()) {
    fail_usage(fmt::format("[rewind] position {} was not kept; marks: {}", to, fmt::join(marks(), ", ")));
  }
  restore(model(), kept->second, lease_.pool().states(), slot(), adapter_);
  head_ = kept->second.head;
  marks_.erase(std::next(kept), marks_.end());  // of tokens that are no longer part of the sequence
}

}  // namespace krait
