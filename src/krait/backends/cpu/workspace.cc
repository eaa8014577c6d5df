#include "krait/backends/cpu/workspace.h"

#include <memory>
#include <new>

namespace krait {
namespace {

constexpr std::align_val_t kAlign{64};
struct Free {
  void operator()(std::byte* p) const { ::operator delete[](p, kAlign); }
};

class Scratch {
 public:
  void* at_least(size_t bytes) {
    if (size_ < bytes) {
      memory_.reset();
      size_ = 0;
      memory_.reset(new (kAlign) std::byte[bytes]);
      size_ = bytes;
    }
    return memory_.get();
  }

 private:
  std::unique_ptr<std::byte[], Free> memory_;
  size_t size_ = 0;
};

}  // namespace

void* call_workspace(size_t bytes) {
  thread_local Scratch scratch;
  return scratch.at_least(bytes);
}

void* task_workspace(size_t bytes) {
  thread_local Scratch scratch;
  return scratch.at_least(bytes);
}

}  // namespace krait
