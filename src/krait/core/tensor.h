// Tensor: a value type that views a shared buffer. Row-major unless narrowed; strides are in elements.
// Of a block type (core/dtype.h) each row of the last dimension is a whole number of blocks; such a tensor is reached
// by bytes(), and its rows cannot be cut.
#pragma once
#include <cstddef>
#include <memory>
#include <string>

#include "krait/core/dtype.h"
#include "krait/core/shape.h"

namespace krait {

class Tensor {
 public:
  Tensor() = default;

  // Fresh host memory, 64-byte aligned. `empty` leaves it uninitialised.
  static Tensor empty(const Shape& shape, DType dtype = DType::kF32);
  static Tensor zeros(const Shape& shape, DType dtype = DType::kF32);
  // Views memory owned by `owner` (a file mapping, a pool); `data` must stay valid while `owner` lives.
  static Tensor view_of(std::shared_ptr<const void> owner, const void* data, const Shape& shape, DType dtype);

  bool defined() const { return data_ != nullptr || owner_ != nullptr; }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t numel() const { return shape_.numel(); }
  int64_t stride(int i) const { return strides_[static_cast<size_t>(i < 0 ? rank() + i : i)]; }
  bool is_contiguous() const;
  int64_t nbytes() const { return bytes_of(dtype_, numel()); }

  // Typed access; throws kInternal when T is not the dtype. bf16 and f16 are read through uint16_t.
  template <class T>
  T* data() {
    check_type(sizeof(T), DTypeTag<T>::is16, DTypeTag<T>::value);
    return static_cast<T*>(data_);
  }
  template <class T>
  const T* data() const {
    return const_cast<Tensor*>(this)->data<T>();
  }
  float* f32() { return data<float>(); }
  const float* f32() const { return data<float>(); }
  std::byte* bytes() { return static_cast<std::byte*>(data_); }
  const std::byte* bytes() const { return static_cast<const std::byte*>(data_); }

  // The buffer that this tensor views, as a whole: who holds it (null for a default tensor), and its elements.
  const std::shared_ptr<const void>& owner() const { return owner_; }
  int64_t buffer_numel() const { return buffer_numel_; }
  // The part of `whole`, a contiguous tensor of buffer_numel() elements, that this tensor is of its own buffer.
  Tensor same_part_of(const Tensor& whole) const;

  // Views, sharing the buffer.
  Tensor narrow(int dim, int64_t start, int64_t length) const;
  Tensor reshape(const Shape& shape) const;  // contiguous tensors only
  Tensor clone() const;                      // contiguous copy

 private:
  template <class T>
  struct DTypeTag {
    static constexpr bool is16 = false;
    static constexpr DType value = DTypeOf<T>::value;
  };
  void check_type(size_t size, bool is16, DType want) const;

  std::shared_ptr<const void> owner_;
  void* data_ = nullptr;
  Shape shape_;
  std::array<int64_t, Shape::kMaxRank> strides_{};
  int64_t buffer_offset_ = 0, buffer_numel_ = 0;  // of the first element, in elements
  DType dtype_ = DType::kF32;
};

template <>
struct Tensor::DTypeTag<uint16_t> {
  static constexpr bool is16 = true;
  static constexpr DType value = DType::kBF16;
};

}  // namespace krait
