// Scratch memory of kernels, kept by a thread from call to call.
#pragma once
#include <cstddef>

namespace krait {

// At least `bytes` bytes, 64-byte aligned, contents unspecified; valid until this thread asks again. Grows only.
void* call_workspace(size_t bytes);  // for what a whole call shares
void* task_workspace(size_t bytes);  // for one task of a parallel loop; never overlaps the caller's call_workspace

}  // namespace krait
