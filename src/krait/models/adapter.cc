#include "krait/models/adapter.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "krait/core/error.h"

namespace krait {
namespace {

constexpr const char* kConvSuffix = "conv1d.weight";

std::string module_of(const std::string& name) {
  if (name == kEmbeddingName) return "backbone.embeddings";
  return name.substr(0, name.size() - std::strlen(".weight"));
}

// Rows of both, one under the other: [a + b, K].
Tensor stacked(const Tensor& a, const Tensor& b) {
  Tensor r = Tensor::empty({a.dim(0) + b.dim(0), a.dim(1)});
  std::copy_n(a.f32(), a.numel(), r.f32());
  std::copy_n(b.f32(), b.numel(), r.f32() + a.numel());
  return r;
}

// Columns of both, side by side, times a number each: [N, a + b].
Tensor beside(const Tensor& a, float times_a, const Tensor& b, float times_b) {
  const int64_t N = a.dim(0), ra = a.dim(1), rb = b.dim(1);
  Tensor r = Tensor::empty({N, ra + rb});
  for (int64_t n = 0; n < N; ++n) {
    float* row = r.f32() + n * (ra + rb);
    for (int64_t k = 0; k < ra; ++k) row[k] = a.f32()[n * ra + k] * times_a;
    for (int64_t k = 0; k < rb; ++k) row[ra + k] = b.f32()[n * rb + k] * times_b;
  }
  return r;
}

void add_factors(LowRankFactors& sum, const LowRankFactors& f, float times) {
  if (!sum.A.defined()) {
    sum = {f.A, f.B, f.scale * times};
    return;
  }
  sum = {stacked(sum.A, f.A), beside(sum.B, sum.scale, f.B, f.scale * times), 1};
}

// w [N, K] += scale · B·A, or for the embedding, which is stored [K, N], its transpose.
void add_product(const LowRankFactors& f, bool transposed, Tensor& w) {
  const int64_t N = f.B.dim(0), K = f.A.dim(1), r = f.rank();
  std::vector<float> row(static_cast<size_t>(K));
  for (int64_t n = 0; n < N; ++n) {
    std::ranges::fill(row, 0.0F);
    for (int64_t i = 0; i < r; ++i) {
      const float b = f.scale * f.B.f32()[n * r + i];
      const float* a = f.A.f32() + i * K;
      for (int64_t k = 0; k < K; ++k) row[static_cast<size_t>(k)] += b * a[k];
    }
    for (int64_t k = 0; k < K; ++k) w.f32()[transposed ? k * N + n : n * K + k] += row[static_cast<size_t>(k)];
  }
}

}  // namespace

double scale_of(int64_t rank, double alpha, bool rslora) {
  const auto r = static_cast<double>(rank);
  return alpha / (rslora ? std::sqrt(r) : r);
}

std::vector<AdaptableParam> adaptable_params(const ModelSpec& spec) {
  std::vector<AdaptableParam> all;
  for (const ParamSpec& p : model_params(spec)) {
    if (p.name == kHeadName) continue;
    if (p.role == ParamRole::kMatmul) {
      all.push_back({p.name, module_of(p.name), p.shape[0], p.shape[1]});
    } else if (p.role == ParamRole::kTable) {
      all.push_back({p.name, module_of(p.name), p.shape[1], p.shape[0]});
    } else if (p.name.ends_with(kConvSuffix)) {
      all.push_back({p.name, module_of(p.name), p.shape[0], p.shape[2]});
    }
  }
  return all;
}

int64_t Adapter::param_count() const {
  int64_t n = 0;
  for (const auto& [parameter, f] : factors) n += f.A.numel() + f.B.numel();
  for (const auto& [tensor, t] : states) n += t.numel();
  return n;
}

void check_adapter(const Adapter& a, const ModelSpec& spec) {
  std::string problems;
  std::map<std::string, AdaptableParam> known;
  for (AdaptableParam& p : adaptable_params(spec)) known[p.name] = std::move(p);
  for (const auto& [name, f] : a.factors) {
    const auto p = known.find(name);
    if (p == known.end()) {
      problems += "\n  " + name + ": the model has no such parameter, or none that adapters change";
    } else if (f.A.rank() != 2 || f.B.rank() != 2 || f.A.dim(0) != f.B.dim(1) || f.A.dim(0) < 1 ||
               f.A.dim(1) != p->second.K || f.B.dim(0) != p->second.N) {
      problems += fmt::format("\n  {}: A is {} and B {}, the model wants [r, {}] and [{}, r]", name, f.A.shape().str(),
                              f.B.shape().str(), p->second.K, p->second.N);
    } else if (count_non_finite(f.A) + count_non_finite(f.B) > 0 || !std::isfinite(f.scale)) {
      problems += "\n  " + name + ": values that are NaN or infinite";
    }
  }
  for (const auto& [name, t] : a.states) {
    const bool block = std::ranges::any_of(
        spec.blocks, [&](const SubBlockSpec& b) { return name.substr(0, name.rfind('.')) == b.prefix; });
    if (!block) problems += "\n  " + name + ": the model has no such sub-block";
    if (count_non_finite(t) > 0) problems += "\n  " + name + ": values that are NaN or infinite";
  }
  if (a.factors.empty() && a.states.empty()) problems += "\n  it changes nothing";
  if (!problems.empty()) fail_data("[lora] adapter " + a.name + " does not fit the model:" + problems);
}

Adapter combined(const std::vector<std::pair<Adapter, double>>& parts) {
  Adapter sum;
  for (const auto& [part, times] : parts) {
    sum.name += (sum.name.empty() ? "" : "+") + part.name;
    for (const auto& [name, f] : part.factors) add_factors(sum.factors[name], f, static_cast<float>(times));
    if (part.states.empty()) continue;
    if (times != 1) fail_usage("[lora] " + part.name + " has initial states, which have no scale");
    if (!sum.states.empty()) fail_usage("[lora] two adapters have initial states: " + sum.name);
    sum.states = part.states;
  }
  if (parts.size() == 1) sum.settings = parts.front().first.settings;
  if (parts.size() > 1) {
    sum.settings.rank = 1;
    for (const auto& [name, f] : sum.factors) {
      sum.settings.rank = std::max(sum.settings.rank, f.rank());
      sum.settings.targets.push_back(module_of(name));
    }
    sum.settings.alpha = static_cast<double>(sum.settings.rank);
  }
  return sum;
}

void merge(const Adapter& a, ModelSpec& spec, ParamStore& params) {
  check_adapter(a, spec);
  if (!a.states.empty()) {
    fail_usage("[lora merge] adapter " + a.name + " has initial states, for which a checkpoint has no place");
  }
  for (const auto& [name, f] : a.factors) {
    const Param& p = params.get(name);
    if (is_block_type(p.value.dtype())) {
      fail_usage(fmt::format("[lora merge] {} is {}: sums are not quantized anew; choose --dtype f32, bf16 or f16",
                             name, name_of(p.value.dtype())));
    }
    const bool table = name == kEmbeddingName;
    if (table && spec.tie_embeddings) {
      spec.tie_embeddings = false;
      params.set(kHeadName, p);
    }
    Tensor sum = to_f32(p.value);
    add_product(f, table, sum);
    params.set(name, {p.value.dtype() == DType::kF64 ? sum : from_f32(sum, p.value.dtype()), false});
  }
}

uint64_t hash_of(const Adapter& a, uint64_t seed) {
  XXH64_hash_t h = seed;
  const auto mix = [&h](const void* p, size_t n) { h = XXH3_64bits_withSeed(p, n, h); };
  const auto mix_tensor = [&](const Tensor& t) { mix(t.bytes(), static_cast<size_t>(t.nbytes())); };
  for (const auto& [name, f] : a.factors) {
    mix(name.data(), name.size());
    mix(&f.scale, sizeof f.scale);
    mix_tensor(f.A);
    mix_tensor(f.B);
  }
  for (const auto& [name, t] : a.states) {
    mix(name.data(), name.size());
    mix_tensor(t);
  }
  return h;
}

}  // namespace krait
