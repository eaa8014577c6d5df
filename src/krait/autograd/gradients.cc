#include "krait/autograd/gradients.h"

#include "krait/core/error.h"

namespace krait {

Tensor Gradients::part_of(Tensor Entry::* buffer, const Tensor& t) {
  if (!t.defined()) throw Error(ErrorCode::kInternal, "[gradients] an undefined tensor has no gradient");
  Entry& e = buffers_[t.owner().get()];
  if (!e.values) e.values = t.owner();
  if (!(e.*buffer).defined()) e.*buffer = Tensor::zeros({t.buffer_numel()});
  return t.same_part_of(e.*buffer);
}

Tensor Gradients::of(const Tensor& t) { return part_of(&Entry::gradient, t); }

Tensor Gradients::apart(const Tensor& t) { return part_of(&Entry::apart, t); }

Tensor Gradients::total(const Tensor& t) {
  Tensor sum = of(t);
  Entry& e = buffers_[t.owner().get()];
  if (e.apart.defined()) {
    for (int64_t i = 0; i < e.apart.numel(); ++i) e.gradient.f32()[i] += e.apart.f32()[i];
    e.apart = {};
  }
  return sum;
}

Tensor Gradients::claim(const Tensor& t) {
  if (t.numel() != t.buffer_numel() || !t.is_contiguous()) return {};
  Entry& e = buffers_[t.owner().get()];
  if (e.gradient.defined()) return {};
  if (!e.values) e.values = t.owner();
  e.gradient = Tensor::empty({t.buffer_numel()});
  return t.same_part_of(e.gradient);
}

bool Gradients::has(const Tensor& t) const {
  const auto e = buffers_.find(t.owner().get());
  return e != buffers_.end() && e->second.gradient.defined();
}

void Gradients::watch(const Tensor& t) {
  Entry& e = buffers_[t.owner().get()];
  e.values = t.owner();
  e.watched = true;
}

bool Gradients::watched(const Tensor& t) const {
  const auto e = buffers_.find(t.owner().get());
  return t.defined() && e != buffers_.end() && e->second.watched;
}

void Gradients::pass_on(const Tensor& from, const Tensor& to) {
  const auto source = buffers_.find(from.owner().get());
  if (source == buffers_.end()) return;
  if (from.buffer_numel() != to.buffer_numel() || has(to)) {
    throw Error(ErrorCode::kInternal, "[gradients] the gradient of " + from.shape().str() + " cannot pass to " +
                                          to.shape().str() + ", which is of another size or has one");
  }
  Tensor gradient = std::move(source->second.gradient);
  buffers_.erase(source);
  Entry& e = buffers_[to.owner().get()];
  e.values = to.owner();
  e.gradient = std::move(gradient);
}

void Gradients::drop_unwatched() {
  std::erase_if(buffers_, [](const auto& e) { return !e.second.watched; });
}

void Gradients::drop_unreachable() {
  std::erase_if(buffers_, [](const auto& e) { return e.second.values.use_count() == 1; });
}

}  // namespace krait
