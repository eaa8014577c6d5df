#include "krait/serve/cache/shared_ids.h"

#include <algorithm>
#include <mutex>

namespace krait::serve {

// The first `used` ids never change again: owners read what they have without the mutex.
struct SharedIds::Buffer {
  explicit Buffer(size_t n) : ids(std::make_unique_for_overwrite<int32_t[]>(n)), capacity(n) {}

  // Puts `more` behind the first `size` ids. False: others stand there, or there is no room.
  bool take(size_t size, std::span<const int32_t> more) {
    const std::lock_guard lock(mutex);
    const auto there = std::span(ids.get(), used).subspan(size);
    const size_t same = std::min(there.size(), more.size());
    if (size + more.size() > capacity || !std::ranges::equal(there.first(same), more.first(same))) return false;
    std::ranges::copy(more.subspan(same), ids.get() + size + same);
    used = std::max(used, size + more.size());
    return true;
  }

  const std::unique_ptr<int32_t[]> ids;
  const size_t capacity;
  std::mutex mutex;
  size_t used = 0;  // under the mutex
};

SharedIds SharedIds::first(size_t n) const {
  SharedIds part = *this;
  part.size_ = std::min(n, size_);
  return part;
}

void SharedIds::append(std::span<const int32_t> ids) {
  if (ids.empty()) return;
  if (buffer_ == nullptr || !buffer_->take(size_, ids)) {
    auto own = std::make_shared<Buffer>(std::max<size_t>(64, 2 * (size_ + ids.size())));
    own->take(0, span());
    own->take(size_, ids);
    buffer_ = std::move(own);
    begin_ = buffer_->ids.get();
  }
  size_ += ids.size();
}

}  // namespace krait::serve
