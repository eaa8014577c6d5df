#include "krait/backends/cpu/matmul_workspace.h"

#include <memory>
#include <new>

namespace krait {
namespace {

constexpr std::align_val_t kAlign{64};
struct Free {
  void operator()(std::byte* p) const { ::operator delete[](p, kAlign); }
};

}  // namespace

void* matmul_workspace(size_t bytes) {
  thread_local std::unique_ptr<std::byte[], Free> memory;
  thread_local size_t size = 0;
  if (size < bytes) {
    memory.reset();
    size = 0;
    memory.reset(new (kAlign) std::byte[bytes]);
    size = bytes;
  }
  return memory.get();
}

}  // namespace krait
