// MemoryShare: what one connection or exchange holds of the memory that a server has for long bodies and for answers
// that wait to be written. Many clients that stop in the middle of something must not take all memory.
#pragma once
#include <malloc.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

namespace krait::serve {

// Outlives its server's connections; shared by their shares.
struct SharedMemory {
  explicit SharedMemory(size_t most) : limit(most) {}
  const size_t limit;
  std::atomic<size_t> used = 0;

  void give_back(size_t bytes) {
    used -= bytes;
    if ((given_back_ += bytes) < kTrim) return;
    given_back_ = 0;
    malloc_trim(0);  // the heap keeps what is freed, else
  }

 private:
  static constexpr size_t kTrim = size_t{32} << 20;  // bytes between two calls, which take a millisecond or more
  std::atomic<size_t> given_back_ = 0;
};

class MemoryShare {
 public:
  explicit MemoryShare(std::shared_ptr<SharedMemory> memory) : memory_(std::move(memory)) {}
  MemoryShare(MemoryShare&& other) noexcept : memory_(other.memory_), bytes_(std::exchange(other.bytes_, 0)) {}
  MemoryShare(const MemoryShare&) = delete;
  MemoryShare& operator=(const MemoryShare&) = delete;
  ~MemoryShare() { set(0); }

  // How much is held from now on. Little is not counted, and who is alone gets any amount. False: there is no room, and
  // the share stays as it was.
  bool set(size_t bytes) {
    if (bytes <= kLittle) bytes = 0;
    if (bytes <= bytes_) {
      memory_->give_back(bytes_ - bytes);
    } else {
      const size_t more = bytes - bytes_, before = memory_->used.fetch_add(more);
      if (before > bytes_ && before + more > memory_->limit) {
        memory_->used -= more;
        return false;
      }
    }
    bytes_ = bytes;
    return true;
  }

 private:
  static constexpr size_t kLittle = size_t{64} << 10;  // bytes; ordinary requests are answered whatever others hold
  std::shared_ptr<SharedMemory> memory_;
  size_t bytes_ = 0;
};

}  // namespace krait::serve
