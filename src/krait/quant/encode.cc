#include "krait/quant/encode.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "krait/core/error.h"
#include "krait/quant/encode_block.h"

namespace krait::quant {
namespace {

// Divides values and weights by their largest. Weights are kept above zero: a column that no calibration text touched
// is still to be rounded, not dropped.
template <int kN>
struct Prepared {
  alignas(64) float x[kN];
  alignas(64) float w[kN];
  float unit;

  Prepared(const float* values, const float* importance) {
    constexpr float kNothing = 1e-30f;  // below it 1 / unit would leave the range; no half comes near
    constexpr float kLeastWeight = 1e-6f;
    float largest = 0, heaviest = 0;
    for (int i = 0; i < kN; ++i) largest = std::max(largest, std::fabs(values[i]));
    unit = largest < kNothing ? 1 : largest;
    for (int i = 0; i < kN; ++i) x[i] = largest < kNothing ? 0 : values[i] / unit;
    if (importance != nullptr) heaviest = *std::max_element(importance, importance + kN);
    for (int i = 0; i < kN; ++i) w[i] = heaviest < kNothing ? 1 : std::max(importance[i] / heaviest, kLeastWeight);
  }
};

template <DType kType>
void encode_blocks(const float* x, const float* importance, int64_t n, void* blocks) {
  constexpr int kN = static_cast<int>(block_of(kType).elements);
  auto* out = static_cast<std::byte*>(blocks);
  for (int64_t i = 0; i < n; i += kN, out += block_of(kType).bytes) {
    const Prepared<kN> p(x + i, importance == nullptr ? nullptr : importance + i);
    typename BlockOf<kType>::type b;
    encode_block({p.x, p.w, p.unit}, b);
    std::memcpy(out, &b, sizeof b);
  }
}

void check(const Tensor& rows, DType type, const Tensor& importance, std::string_view name) {
  if (!is_block_type(type) || rows.dtype() != DType::kF32 || !rows.is_contiguous() || rows.rank() < 1) {
    throw Error(ErrorCode::kInternal,
                fmt::format("[quantize] {}: contiguous rows of f32 become blocks, got {} {} -> {}", name,
                            name_of(rows.dtype()), rows.shape().str(), name_of(type)));
  }
  const int64_t K = rows.dim(-1), block = block_of(type).elements;
  if (K % block != 0) {
    fail_usage(
        fmt::format("[quantize] {} has rows of {}, no multiple of {}, the block of {}", name, K, block, name_of(type)));
  }
  if (!importance.defined()) return;
  const bool fits = importance.dtype() == DType::kF32 && importance.shape() == Shape({K});
  if (!fits || !std::all_of(importance.f32(), importance.f32() + K, [](float w) { return w >= 0 && w < INFINITY; })) {
    throw Error(ErrorCode::kInternal,
                fmt::format("[quantize] the importance of {} is not [{}] f32, finite and >= 0", name, K));
  }
}

}  // namespace

void encode_row(DType type, const float* x, const float* importance, int64_t n, void* blocks) {
  switch (type) {
#define KRAIT_ENCODE(name) \
  case DType::k##name:     \
    return encode_blocks<DType::k##name>(x, importance, n, blocks);
    KRAIT_BLOCK_TYPES(KRAIT_ENCODE)
#undef KRAIT_ENCODE
    default:
      throw Error(ErrorCode::kInternal, fmt::format("[quantize] {} has no blocks", name_of(type)));
  }
}

Tensor encode(const Tensor& rows, DType type, const Tensor& importance, ThreadPool& pool, std::string_view name,
              const std::function<void(int64_t)>& progress) {
  check(rows, type, importance, name);
  const int64_t K = rows.dim(-1), n_rows = K == 0 ? 0 : rows.numel() / K;
  Tensor out = Tensor::empty(rows.shape(), type);
  std::atomic<int64_t> bad{0};
  const auto encode_one = [&](int64_t r) {
    const float* x = rows.f32() + r * K;
    const auto n = std::count_if(x, x + K, [](float v) { return !(std::fabs(v) <= kLargestWeight); });
    bad += n;
    if (n == 0) {
      encode_row(type, x, importance.defined() ? importance.f32() : nullptr, K, out.bytes() + bytes_of(type, r * K));
    }
  };
  constexpr int64_t kStep = int64_t{1} << 20;  // weights: some tenths of a second
  const int64_t step = std::max<int64_t>(pool.n_threads(), kStep / std::max<int64_t>(K, 1));
  for (int64_t first = 0; first < n_rows; first += step) {
    const int64_t n = std::min(step, n_rows - first);
    pool.parallel_for(n, [&](int64_t i) { encode_one(first + i); });
    if (progress) progress(n * K);
  }
  if (bad > 0) {
    fail_data(fmt::format("[quantize] {} of {} values of {} are not finite or above {} in magnitude", bad.load(),
                          rows.numel(), name, kLargestWeight));
  }
  return out;
}

}  // namespace krait::quant
