// Adapters with random factors for the tiny models.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "krait/models/adapter.h"
#include "tests/tiny_models.h"

namespace krait::test {

inline Tensor random_tensor(const Shape& shape, uint64_t seed, double size) {
  Tensor t = Tensor::empty(shape);
  Rng rng(seed);
  for (int64_t i = 0; i < t.numel(); ++i) t.f32()[i] = static_cast<float>(size * rng.normal());
  return t;
}

// Of rank 3, on the parameters whose names end with one of `suffixes` (all if there are none).
inline Adapter random_adapter(const ModelSpec& spec, uint64_t seed, const std::vector<std::string>& suffixes = {}) {
  Adapter a;
  a.name = "a" + std::to_string(seed);
  a.settings.rank = 3;
  a.settings.alpha = 4.5;
  for (const AdaptableParam& p : adaptable_params(spec)) {
    const bool wanted = suffixes.empty() || std::any_of(suffixes.begin(), suffixes.end(), [&](const std::string& s) {
                          return p.name.ends_with(s + ".weight");
                        });
    if (!wanted) continue;
    seed += 1000;
    a.factors[p.name] = {random_tensor({3, p.K}, seed, 0.3), random_tensor({p.N, 3}, seed + 1, 0.3), 1.5F};
    a.settings.targets.push_back(p.module);
  }
  return a;
}

inline std::shared_ptr<const Adapter> share(Adapter a) { return std::make_shared<const Adapter>(std::move(a)); }

inline Model with_adapters(const ModelSpec& spec, const ParamStore& params, Adapters adapters, int32_t chosen = 0) {
  return {spec, params, runtime(), std::move(adapters), chosen};
}

}  // namespace krait::test
