#include "krait/quant/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "krait/core/error.h"
#include "krait/ops/dequantize.h"
#include "krait/quant/encode.h"
#include "krait/quant/relative_rms.h"

namespace krait::quant {
namespace {

Tensor importance_of(const std::string& name, const ActivationStats* stats) {
  if (stats == nullptr) return {};
  const std::vector<float> v = stats->mean_squares(name);
  if (v.empty()) return {};
  Tensor t = Tensor::empty({static_cast<int64_t>(v.size())});
  std::ranges::copy(v, t.f32());
  return t;
}

Tensor cast(const Tensor& w, const PlannedTensor& p) {
  Tensor out = from_f32(w, p.type);
  if (const int64_t n = count_non_finite(out); n > 0) {
    fail_data(fmt::format("[quantize] {} values of {} leave the range of {}", n, p.file_name, name_of(p.type)));
  }
  return out;
}

// `a` [N, K] against the original `w`, columns weighted by `importance` in the second figure.
TensorError error_of(const Tensor& a, const Tensor& w, const Tensor& importance, ThreadPool& pool) {
  const int64_t K = w.shape()[-1], N = w.numel() / K;
  struct Sums {
    double error = 0, size = 0, weighted_error = 0, weighted_size = 0;
  };
  std::vector<Sums> rows(static_cast<size_t>(N));
  pool.parallel_for(N, [&](int64_t n) {
    Sums s;
    for (int64_t k = 0; k < K; ++k) {
      const auto x = static_cast<double>(w.f32()[n * K + k]);
      const double d = static_cast<double>(a.f32()[n * K + k]) - x;
      const double f = importance.defined() ? static_cast<double>(importance.f32()[k]) : 0;
      s.error += d * d;
      s.size += x * x;
      s.weighted_error += f * d * d;
      s.weighted_size += f * x * x;
    }
    rows[static_cast<size_t>(n)] = s;
  });
  Sums all;
  for (const Sums& s : rows) {
    all.error += s.error;
    all.size += s.size;
    all.weighted_error += s.weighted_error;
    all.weighted_size += s.weighted_size;
  }
  const double outputs = importance.defined() ? relative_rms(all.weighted_error, all.weighted_size)
                                              : std::numeric_limits<double>::quiet_NaN();
  return {relative_rms(all.error, all.size), outputs};
}

}  // namespace

QuantizedTensor quantize_tensor(const Tensor& original, const PlannedTensor& p, const ActivationStats* stats,
                                ThreadPool& pool, const std::function<void(int64_t)>& progress) {
  const Tensor w = dequantize(original), importance = importance_of(p.name, stats);
  QuantizedTensor q;
  if (p.type == original.dtype()) {
    q.value = original;  // as it is, to the bit
  } else if (is_block_type(p.type)) {
    q.value = encode(w, p.type, importance, pool, p.file_name, progress);
  } else {
    q.value = cast(w, p);
  }
  if (!is_block_type(p.type) || p.type == original.dtype()) progress(w.numel());
  q.error = error_of(dequantize(q.value), w, importance, pool);
  return q;
}

Quantized quantize(const ParamStore& original, const std::vector<PlannedTensor>& tensors, const ActivationStats* stats,
                   ThreadPool& pool, const std::function<void(int64_t)>& progress) {
  Quantized out;
  for (const PlannedTensor& p : tensors) {
    const Param& param = original.get(p.name);
    if (p.vector) {
      out.params.set(p.name, param);
      out.errors.emplace_back();
      progress(p.shape.numel());
    } else {
      QuantizedTensor q = quantize_tensor(param.value, p, stats, pool, progress);
      out.params.set(p.name, {q.value, false});
      out.errors.push_back(q.error);
    }
  }
  return out;
}

}  // namespace krait::quant
