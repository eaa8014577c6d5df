// Gradients: one gradient buffer beside each buffer of values. A slice's gradient is the same slice of it, so that
// views need no backward of their own.
#pragma once
#include <unordered_map>

#include "krait/core/tensor.h"

namespace krait {

class Gradients {
 public:
  // The gradient of t: f32, same shape and strides, zero when its buffer is first asked for. What is written there
  // stays until the buffer is dropped; backwards add to it.
  Tensor of(const Tensor& t);
  // A buffer beside of(t), as large, for the second of two that read one parameter (an embedding to which the head is
  // tied): over several batches each then sums in the order of the tokens, however these were cut.
  Tensor apart(const Tensor& t);
  // of(t), with what lies apart added to it.
  Tensor total(const Tensor& t);
  // For a first writer: the gradient of t, not initialised, if t is a whole contiguous buffer that has none yet; else
  // undefined.
  Tensor claim(const Tensor& t);
  bool has(const Tensor& t) const;

  // Parameters: tensors that somebody wants the gradient of. Only theirs outlive drop_unwatched().
  void watch(const Tensor& t);
  bool watched(const Tensor& t) const;
  // of(t) if it is watched, else undefined: kernels then leave it out.
  Tensor if_watched(const Tensor& t) { return watched(t) ? of(t) : Tensor{}; }

  // `to`, a buffer without a gradient, was computed anew in the place of `from`, as large: it takes the gradient over.
  void pass_on(const Tensor& from, const Tensor& to);

  void drop_unwatched();
  // Drops gradients of buffers that nobody holds any more.
  void drop_unreachable();

 private:
  struct Entry {
    std::shared_ptr<const void> values;  // keeps the address from being used again
    Tensor gradient, apart;              // [numel of the buffer]; undefined if nothing was added yet
    bool watched = false;
  };
  // t's part of that buffer of its entry, zero when it is first asked for.
  Tensor part_of(Tensor Entry::* buffer, const Tensor& t);

  std::unordered_map<const void*, Entry> buffers_;
};

}  // namespace krait
