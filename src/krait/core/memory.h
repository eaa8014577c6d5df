// Memory of tensors. Big blocks are carved from slabs that the system is asked to back with huge pages, and go back to
// their slab, not to the system: the next pass finds them mapped, so that a forward pass neither maps nor faults.
#pragma once
#include <cstddef>
#include <memory>

namespace krait {

// `bytes` uninitialised bytes and at least 64 more, 64-byte aligned. Throws kFailed if there are none.
std::shared_ptr<void> allocate(size_t bytes);

// Empty slabs of that many bytes in all are kept for what comes next; beyond that they go back to the system. A
// training run, whose every step needs what the last one did, keeps all: mapping anew means clearing anew.
inline constexpr size_t kKeptSlabBytes = size_t{64} << 20;  // at first
void keep_slabs(size_t bytes);

struct MemoryUse {
  size_t mapped = 0;  // bytes of all slabs
  size_t used = 0;    // of them, in blocks
};
MemoryUse slab_memory();

}  // namespace krait
