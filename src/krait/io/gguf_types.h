// Numbers of the GGUF format (spec/gguf.md §1, §5.1): what the reader and the writer share.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "krait/core/dtype.h"

namespace krait::io {

inline constexpr uint32_t kGgufVersion = 3;
inline constexpr uint64_t kGgufAlignment = 32;
inline constexpr size_t kGgufLongestTensorName = 63;
inline constexpr uint32_t kGgufMostDims = 4;

enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12
};

// The tensor type of that number; nothing for numbers that are unknown or refused.
std::optional<DType> dtype_of_ggml(uint32_t type);
// Nothing for kU8 and kBool, which tensors of the format cannot have.
std::optional<uint32_t> ggml_of_dtype(DType);
// "Q4_K", or "type 99".
std::string ggml_type_name(uint32_t type);

// The shortest decimal that rounds to v: 1e-5 stored as f32 reads as 1e-5, not 9.99999975e-06.
double decimal_of(float v);

}  // namespace krait::io
