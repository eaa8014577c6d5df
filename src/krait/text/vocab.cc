#include "krait/text/vocab.h"

#include <algorithm>

namespace krait::text {

std::string_view Vocab::token(int32_t id) const {
  if (id < 0 || id >= size()) return {};
  const Span s = spans_[static_cast<size_t>(id)];
  return std::string_view(texts_).substr(s.offset, s.length);
}

size_t Vocab::slot_of(std::string_view token) const {
  const size_t mask = slots_.size() - 1;
  size_t at = hash_bytes(token) & mask;
  while (slots_[at] >= 0 && this->token(slots_[at]) != token) at = (at + 1) & mask;
  return at;
}

int32_t Vocab::find(std::string_view token) const { return slots_.empty() ? -1 : slots_[slot_of(token)]; }

void Vocab::grow() {
  const std::vector<int32_t> old = std::move(slots_);
  slots_.assign(std::max<size_t>(1024, old.size() * 2), -1);
  for (const int32_t id : old) {
    if (id >= 0) slots_[slot_of(token(id))] = id;
  }
}

bool Vocab::add(std::string_view token, int32_t id) {
  if (used_ * 2 >= slots_.size()) grow();
  const size_t at = slot_of(token);
  if (slots_[at] >= 0) return false;
  if (id >= size()) spans_.resize(static_cast<size_t>(id) + 1);
  spans_[static_cast<size_t>(id)] = {texts_.size(), static_cast<uint32_t>(token.size())};
  texts_.append(token);
  slots_[at] = id;
  ++used_;
  return true;
}

}  // namespace krait::text
