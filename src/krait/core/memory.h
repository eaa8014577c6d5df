// Memory of tensors. Big blocks are carved from slabs that the system is asked to back with huge pages, and go back to
// their slab, not to the system: the next pass finds them mapped, so that a forward pass neither maps nor faults.
#pragma once
#include <cstddef>
#include <memory>

namespace krait {

// `bytes` uninitialised bytes and at least 64 more, 64-byte aligned. Throws kFailed if there are none.
std::shared_ptr<void> allocate(size_t bytes);

struct MemoryUse {
  size_t mapped = 0;  // bytes of all slabs
  size_t used = 0;    // of them, in blocks
};
MemoryUse slab_memory();

}  // namespace krait
