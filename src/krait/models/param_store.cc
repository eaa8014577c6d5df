#include "krait/models/param_store.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "krait/core/error.h"
#include "krait/core/half.h"
#include "krait/core/thread_pool.h"
#include "krait/io/mapped_file.h"
#include "krait/mixers/registry.h"
#include "krait/ops/dequantize.h"

namespace krait {
namespace {

void push_norm(std::vector<ParamSpec>& out, const ModelSpec& m, const std::string& name) {
  out.push_back({name + ".weight", {m.d_model}, ParamRole::kVector, Init::constant(1)});
  if (!m.rms_norm) out.push_back({name + ".bias", {m.d_model}, ParamRole::kVector, Init::constant(0)});
}

}  // namespace

std::vector<ParamSpec> model_params(const ModelSpec& m) {
  std::vector<ParamSpec> out;
  const Shape table{m.padded_vocab_size, m.d_model};
  out.push_back({kEmbeddingName, table, ParamRole::kTable, Init::normal(0.02)});
  for (const SubBlockSpec& b : m.blocks) {
    push_norm(out, m, b.norm);
    for (ParamSpec p : find_mixer(b.mixer).params(b.config, m.d_model)) {
      p.name = b.prefix + "." + p.name;
      out.push_back(std::move(p));
    }
  }
  push_norm(out, m, kFinalNormName);
  if (!m.tie_embeddings) {
    const double bound = 1 / std::sqrt(static_cast<double>(m.d_model));
    out.push_back({kHeadName, table, ParamRole::kMatmul, Init::uniform(bound)});
  }
  return out;
}

bool is_packed(const ParamSpec& p, const ModelSpec& m) {
  return p.role == ParamRole::kMatmul || (p.role == ParamRole::kTable && m.tie_embeddings);
}

const Param& ParamStore::get(const std::string& name) const {
  const auto it = params_.find(name);
  if (it == params_.end()) throw Error(ErrorCode::kInternal, "[params] '" + name + "' was not loaded");
  return it->second;
}

Tensor ParamStore::f32(const std::string& name) const {
  const Param& p = get(name);
  Tensor t = to_f32(p.value);
  if (p.neg_exp) {
    for (int64_t i = 0; i < t.numel(); ++i) t.f32()[i] = std::log(-t.f32()[i]);
  }
  return t;
}

Tensor ParamStore::neg_exp(const std::string& name) const {
  const Param& p = get(name);
  Tensor t = to_f32(p.value);
  if (!p.neg_exp) {
    for (int64_t i = 0; i < t.numel(); ++i) t.f32()[i] = -std::exp(t.f32()[i]);
  }
  return t;
}

Tensor to_f32(const Tensor& t) {
  switch (t.dtype()) {
    case DType::kF64:
      break;
    case DType::kF32:
    case DType::kBF16:
    case DType::kF16:
      return dequantize(t);
    default:
      if (is_block_type(t.dtype())) return dequantize(t);
      fail_data("[params] a tensor of " + std::string(name_of(t.dtype())) + " cannot serve as f32");
  }
  const Tensor src = t.is_contiguous() ? t : t.clone();
  Tensor out = Tensor::empty(t.shape());
  for (int64_t i = 0; i < t.numel(); ++i) {
    double v;
    std::memcpy(&v, src.bytes() + i * 8, 8);
    out.f32()[i] = static_cast<float>(v);
  }
  return out;
}

Tensor from_f32(const Tensor& t, DType dtype) {
  if (dtype == DType::kF32) return t;
  Tensor out = Tensor::empty(t.shape(), dtype);
  const float* src = t.f32();
  auto* dst = out.data<uint16_t>();
  for (int64_t i = 0; i < t.numel(); ++i) dst[i] = dtype == DType::kBF16 ? f32_to_bf16(src[i]) : f32_to_f16(src[i]);
  return out;
}

void cast_matrices(ParamStore& params, const ModelSpec& spec, DType dtype) {
  for (const ParamSpec& p : model_params(spec)) {
    if (p.role == ParamRole::kVector) continue;
    const Tensor from = params.get(p.name).value;
    params.set(p.name, {from_f32(to_f32(from), dtype), false});
    io::MappedFile::release_pages(from.bytes(), static_cast<size_t>(from.nbytes()));
  }
}

int64_t count_non_finite(const Tensor& t, ThreadPool* pool) {
  const auto count = [&](int64_t from, int64_t n) {
    return krait::count_non_finite(t.dtype(), t.bytes() + bytes_of(t.dtype(), from), n);
  };
  constexpr int64_t kPart = 1 << 18;  // whole blocks of any type
  const int64_t n = t.numel();
  if (pool == nullptr || n <= kPart) return count(0, n);
  std::atomic<int64_t> bad = 0;
  pool->parallel_for((n + kPart - 1) / kPart,
                     [&](int64_t i) { bad += count(i * kPart, std::min(kPart, n - i * kPart)); });
  return bad;
}

}  // namespace krait
