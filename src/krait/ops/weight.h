// Weight: a matmul operand W of y = x · Wᵀ, logical [N, K], held in the backend's packed layout. Made for training
// (Runtime::parameters), it keeps its rows as well.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "krait/core/tensor.h"
#include "krait/ops/runtime.h"

namespace krait {

struct LowRank;

class Weight {
 public:
  Weight() = default;
  // Packs `rows` [N, K] (f32, bf16, f16 or a block type; contiguous). `name`: the parameter's,
  // for observers.
  Weight(const Runtime&, const Tensor& rows, std::string name = {});

  // Wᵀ, packed as the operand [K, N] of dx = dy · W. Block types are widened to f32. Throws kInternal without rows.
  Weight transposed(const Runtime&) const;

  // What an adapter adds to the product (ops/low_rank.h); null: nothing.
  void adapt(std::vector<std::shared_ptr<const LowRank>> by_adapter) { low_rank_ = std::move(by_adapter); }
  bool adapted() const { return !low_rank_.empty(); }
  const LowRank* low_rank(int32_t adapter) const {
    return adapter < 0 ? nullptr : low_rank_[static_cast<size_t>(adapter)].get();
  }

  int64_t N() const { return N_; }
  int64_t K() const { return K_; }
  DType dtype() const { return dtype_; }
  const void* packed() const { return packed_.bytes(); }
  int64_t packed_bytes() const { return packed_.nbytes(); }
  const std::string& name() const { return name_; }
  const Tensor& rows() const { return rows_; }  // [N, K] as given; undefined unless made for training
  bool finite() const { return !not_finite_; }  // no value, or scale of a block, is infinite or NaN

 private:
  int64_t N_ = 0, K_ = 0;
  DType dtype_ = DType::kF32;
  Tensor packed_;  // u8
  Tensor rows_;
  std::string name_;
  bool not_finite_ = false;
  std::vector<std::shared_ptr<const LowRank>> low_rank_;  // [adapters of the model], or empty
};

}  // namespace krait
