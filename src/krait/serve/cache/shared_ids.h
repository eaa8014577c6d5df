// SharedIds: a list of token ids that grows at its end. Copies and prefixes share their memory, so that a request on
// top of a long conversation costs its own tokens only.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace krait::serve {

// A value: what one copy appends, no other one sees. Copies may be used on several threads, one copy on one at a time.
class SharedIds {
 public:
  SharedIds() = default;
  explicit SharedIds(std::span<const int32_t> ids) { append(ids); }

  const int32_t* begin() const { return begin_; }
  const int32_t* end() const { return begin_ + size_; }
  size_t size() const { return size_; }
  std::span<const int32_t> span() const { return {begin_, size_}; }

  SharedIds first(size_t n) const;  // n <= size()
  // O(ids.size()), amortised, as long as no other copy has gone on with other ids; then all are copied once.
  void append(std::span<const int32_t> ids);

 private:
  struct Buffer;
  std::shared_ptr<Buffer> buffer_;
  const int32_t* begin_ = nullptr;
  size_t size_ = 0;
};

}  // namespace krait::serve
