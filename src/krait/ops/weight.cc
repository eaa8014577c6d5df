#include "krait/ops/weight.h"

#include <utility>

#include "krait/core/error.h"

namespace krait {

Weight::Weight(const Runtime& rt, const Tensor& rows, std::string name) : name_(std::move(name)) {
  if (rows.rank() != 2 || !rows.is_contiguous()) {
    throw Error(ErrorCode::kInternal, "[weight] a matmul operand is [N, K] and contiguous, got " + rows.shape().str());
  }
  N_ = rows.dim(0);
  K_ = rows.dim(1);
  dtype_ = rows.dtype();
  packed_ = Tensor::empty({static_cast<int64_t>(rt.kernels->packed_weight_bytes(dtype_, N_, K_))}, DType::kU8);
  PackWeightParams p{};
  p.src = rows.bytes();
  p.dtype = dtype_;
  p.N = N_;
  p.K = K_;
  p.dst = packed_.bytes();
  p.not_finite = &not_finite_;
  rt.kernels->pack_weight(rt.exec(), p);
}

}  // namespace krait
