// Scratch memory of one matmul call, kept by the calling thread from call to call.
#pragma once
#include <cstddef>

namespace krait {

// At least `bytes` bytes, 64-byte aligned, contents unspecified; valid until this thread asks again. Grows only.
void* matmul_workspace(size_t bytes);

}  // namespace krait
