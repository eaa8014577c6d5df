#include "krait/core/tensor.h"

#include <cstring>

#include "krait/core/error.h"
#include "krait/core/memory.h"

namespace krait {
namespace {

void set_row_major(const Shape& shape, std::array<int64_t, Shape::kMaxRank>& strides) {
  int64_t s = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[static_cast<size_t>(i)] = s;
    s *= shape[i];
  }
}

void check_blocks(const char* op, const Shape& shape, DType dtype) {
  if (!is_block_type(dtype)) return;
  if (shape.rank() < 1 || shape[-1] % block_of(dtype).elements != 0) {
    throw Error(ErrorCode::kInternal, "[" + std::string(op) + "] rows of " + shape.str() + " are no whole blocks of " +
                                          std::string(name_of(dtype)));
  }
}

}  // namespace

Tensor Tensor::empty(const Shape& shape, DType dtype) {
  check_blocks("empty", shape, dtype);
  Tensor t;
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.buffer_numel_ = shape.numel();
  set_row_major(shape, t.strides_);
  std::shared_ptr<void> memory = allocate(static_cast<size_t>(t.nbytes()));
  t.data_ = memory.get();
  t.owner_ = std::move(memory);
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype) {
  Tensor t = empty(shape, dtype);
  std::memset(t.data_, 0, static_cast<size_t>(t.nbytes()));
  return t;
}

Tensor Tensor::view_of(std::shared_ptr<const void> owner, const void* data, const Shape& shape, DType dtype) {
  check_blocks("view_of", shape, dtype);
  Tensor t;
  t.owner_ = std::move(owner);
  t.data_ = const_cast<void*>(data);
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.buffer_numel_ = shape.numel();
  set_row_major(shape, t.strides_);
  return t;
}

Tensor Tensor::same_part_of(const Tensor& whole) const {
  if (!whole.is_contiguous() || whole.numel() != buffer_numel_) {
    throw Error(ErrorCode::kInternal, "[same_part_of] a buffer of " + std::to_string(buffer_numel_) +
                                          " elements has no part in " + whole.shape().str());
  }
  Tensor t = whole;
  t.shape_ = shape_;
  t.strides_ = strides_;
  t.buffer_offset_ = whole.buffer_offset_ + buffer_offset_;
  t.data_ = static_cast<std::byte*>(whole.data_) + bytes_of(whole.dtype_, buffer_offset_);
  return t;
}

bool Tensor::is_contiguous() const {
  int64_t s = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (dim(i) != 1 && stride(i) != s) return false;
    s *= dim(i);
  }
  return true;
}

Tensor Tensor::narrow(int d, int64_t start, int64_t length) const {
  if (d < 0) d += rank();
  if (d < 0 || d >= rank() || start < 0 || length < 0 || start + length > dim(d)) {
    throw Error(ErrorCode::kInternal, "[narrow] " + std::to_string(start) + "+" + std::to_string(length) +
                                          " is outside dimension " + std::to_string(d) + " of " + shape_.str());
  }
  if (is_block_type(dtype_) && (d != 0 || rank() == 1)) {
    throw Error(ErrorCode::kInternal, "[narrow] rows of " + std::string(name_of(dtype_)) + " cannot be cut");
  }
  Tensor t = *this;
  std::array<int64_t, Shape::kMaxRank> dims{};
  for (int i = 0; i < rank(); ++i) dims[static_cast<size_t>(i)] = dim(i);
  dims[static_cast<size_t>(d)] = length;
  t.shape_ = Shape(std::span<const int64_t>(dims.data(), static_cast<size_t>(rank())));
  t.buffer_offset_ += start * stride(d);
  t.data_ = static_cast<std::byte*>(data_) + bytes_of(dtype_, start * stride(d));
  return t;
}

Tensor Tensor::reshape(const Shape& shape) const {
  if (!is_contiguous() || shape.numel() != numel()) {
    throw Error(ErrorCode::kInternal, "[reshape] " + shape_.str() + " cannot be viewed as " + shape.str());
  }
  check_blocks("reshape", shape, dtype_);
  Tensor t = *this;
  t.shape_ = shape;
  set_row_major(shape, t.strides_);
  return t;
}

Tensor Tensor::clone() const {
  Tensor t = empty(shape_, dtype_);
  if (is_contiguous()) {
    if (nbytes() > 0) std::memcpy(t.data_, data_, static_cast<size_t>(nbytes()));
    return t;
  }
  // Copy the innermost dimension run by run.
  const int64_t inner = dim(-1);
  const int64_t size = size_of(dtype_);
  const int64_t rows = inner == 0 ? 0 : numel() / inner;
  for (int64_t r = 0; r < rows; ++r) {
    int64_t rest = r;
    int64_t offset = 0;
    for (int i = rank() - 2; i >= 0; --i) {
      offset += (rest % dim(i)) * stride(i);
      rest /= dim(i);
    }
    const auto* src = static_cast<const std::byte*>(data_) + offset * size;
    auto* dst = static_cast<std::byte*>(t.data_) + r * inner * size;
    if (stride(-1) == 1) {
      std::memcpy(dst, src, static_cast<size_t>(inner * size));
    } else {
      for (int64_t c = 0; c < inner; ++c)
        std::memcpy(dst + c * size, src + c * stride(-1) * size, static_cast<size_t>(size));
    }
  }
  return t;
}

void Tensor::check_type(size_t size, bool is16, DType want) const {
  const bool ok = is16 ? (dtype_ == DType::kBF16 || dtype_ == DType::kF16) : dtype_ == want;
  if (!ok) {
    throw Error(ErrorCode::kInternal, "[tensor] dtype is " + std::string(name_of(dtype_)) + ", asked for elements of " +
                                          std::to_string(size) + " bytes as " + std::string(name_of(want)));
  }
}

}  // namespace krait
