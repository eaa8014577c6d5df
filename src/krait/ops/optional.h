// Tensors that may be undefined and kernels that a backend may lack.
#pragma once
#include <string>

#include "krait/core/error.h"
#include "krait/core/tensor.h"

namespace krait {

inline const float* data_or_null(const Tensor& t) { return t.defined() ? t.f32() : nullptr; }
inline float* data_or_null(Tensor& t) { return t.defined() ? t.f32() : nullptr; }
inline int64_t ld_or_zero(const Tensor& t) { return t.defined() ? t.stride(0) : 0; }

template <class F>
F kernel(const char* name, F f) {
  if (f == nullptr) throw Error(ErrorCode::kInternal, std::string("[") + name + "] this backend has no such kernel");
  return f;
}

}  // namespace krait
