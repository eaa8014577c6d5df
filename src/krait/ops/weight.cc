#include "krait/ops/weight.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "krait/core/error.h"
#include "krait/ops/dequantize.h"

namespace krait {
namespace {

// [N, K] -> [K, N]
template <class Word>
void transpose(const Exec& exec, const Word* from, Word* to, int64_t N, int64_t K) {
  constexpr int64_t kTile = 32;
  exec.pool->parallel_for((K + kTile - 1) / kTile, [&](int64_t tile) {
    const int64_t k0 = tile * kTile, k1 = std::min(k0 + kTile, K);
    for (int64_t n0 = 0; n0 < N; n0 += kTile) {
      for (int64_t k = k0; k < k1; ++k) {
        for (int64_t n = n0; n < std::min(n0 + kTile, N); ++n) to[k * N + n] = from[n * K + k];
      }
    }
  });
}

}  // namespace

Weight::Weight(const Runtime& rt, const Tensor& rows, std::string name) : name_(std::move(name)) {
  if (rows.rank() != 2 || !rows.is_contiguous()) {
    throw Error(ErrorCode::kInternal, "[weight] a matmul operand is [N, K] and contiguous, got " + rows.shape().str());
  }
  N_ = rows.dim(0);
  K_ = rows.dim(1);
  dtype_ = rows.dtype();
  if (rt.parameters != nullptr) rows_ = rows;
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

Weight Weight::transposed(const Runtime& rt) const {
  if (!rows_.defined()) throw Error(ErrorCode::kInternal, "[weight] " + name_ + " was not made for training");
  const Tensor rows = is_block_type(dtype_) ? dequantize(rows_) : rows_;
  Tensor t = Tensor::empty({K_, N_}, rows.dtype());
  if (size_of(rows.dtype()) == 4) {
    transpose(rt.exec(), reinterpret_cast<const uint32_t*>(rows.bytes()), reinterpret_cast<uint32_t*>(t.bytes()), N_,
              K_);
  } else {
    transpose(rt.exec(), reinterpret_cast<const uint16_t*>(rows.bytes()), reinterpret_cast<uint16_t*>(t.bytes()), N_,
              K_);
  }
  return Weight(rt, t, name_);
}

}  // namespace krait
