#include "krait/models/adapted.h"

#include <xxhash.h>

#include <algorithm>

#include "krait/mixers/transpose.h"

namespace krait {
namespace {

// `r` follows from tensors of which some are watched: their gradients are what `back` makes of its own.
template <class Back>
void derived(const Runtime& rt, const Tensor& r, std::initializer_list<Tensor> from, Back back) {
  if (rt.parameters == nullptr) return;
  Gradients& g = rt.parameters->gradients();
  if (std::ranges::none_of(from, [&](const Tensor& t) { return g.watched(t); })) return;
  g.watch(r);
  rt.parameters->record([&g, r, back] { back(g, g.of(r)); });
}

Tensor scaled(const Runtime& rt, const Tensor& B, float scale) {
  Tensor r = Tensor::empty(B.shape());
  for (int64_t i = 0; i < B.numel(); ++i) r.f32()[i] = scale * B.f32()[i];
  derived(rt, r, {B}, [B, scale](Gradients& g, const Tensor& dr) {
    Tensor dB = g.of(B);
    for (int64_t i = 0; i < dB.numel(); ++i) dB.f32()[i] += scale * dr.f32()[i];
  });
  return r;
}

// w [C, 1, W] + scale · B·A
Tensor changed(const Runtime& rt, const Tensor& w, const LowRankFactors& f) {
  const int64_t C = f.B.dim(0), W = f.A.dim(1), r = f.rank();
  Tensor sum = w.clone();
  for (int64_t c = 0; c < C; ++c) {
    for (int64_t i = 0; i < r; ++i) {
      const float b = f.scale * f.B.f32()[c * r + i];
      for (int64_t k = 0; k < W; ++k) sum.f32()[c * W + k] += b * f.A.f32()[i * W + k];
    }
  }
  derived(rt, sum, {w, f.A, f.B}, [w, f, C, W, r](Gradients& g, const Tensor& dsum) {
    Tensor dw = g.if_watched(w), dA = g.of(f.A), dB = g.of(f.B);
    for (int64_t i = 0; dw.defined() && i < dw.numel(); ++i) dw.f32()[i] += dsum.f32()[i];
    for (int64_t c = 0; c < C; ++c) {
      for (int64_t i = 0; i < r; ++i) {
        for (int64_t k = 0; k < W; ++k) {
          const float d = f.scale * dsum.f32()[c * W + k];
          dA.f32()[i * W + k] += d * f.B.f32()[c * r + i];
          dB.f32()[c * r + i] += d * f.A.f32()[i * W + k];
        }
      }
    }
  });
  return sum;
}

// make(factors) for each adapter that changes the parameter.
template <class T, class Make>
std::vector<T> of_all(const Adapters& adapters, const std::string& parameter, Make make) {
  std::vector<T> all(adapters.size());
  bool any = false;
  for (size_t i = 0; i < adapters.size(); ++i) {
    const auto f = adapters[i]->factors.find(parameter);
    if (f == adapters[i]->factors.end()) continue;
    all[i] = make(*adapters[i], f->second);
    any = true;
  }
  if (!any) all.clear();
  return all;
}

}  // namespace

std::vector<std::shared_ptr<const LowRank>> low_ranks(const Runtime& rt, const Adapters& adapters,
                                                      const std::string& parameter) {
  const uint64_t stream = XXH3_64bits(parameter.data(), parameter.size());
  return of_all<std::shared_ptr<const LowRank>>(adapters, parameter, [&](const Adapter& a, const LowRankFactors& f) {
    return std::make_shared<const LowRank>(LowRank{Weight(rt, f.A, parameter + ".lora_A"),
                                                   Weight(rt, scaled(rt, f.B, f.scale), parameter + ".lora_B"),
                                                   static_cast<float>(a.settings.dropout), stream});
  });
}

std::vector<std::shared_ptr<const EmbeddingLowRank>> embedding_low_ranks(const Runtime& rt, const Adapters& adapters) {
  return of_all<std::shared_ptr<const EmbeddingLowRank>>(
      adapters, kEmbeddingName, [&](const Adapter&, const LowRankFactors& f) {
        return std::make_shared<const EmbeddingLowRank>(
            EmbeddingLowRank{transposed(f.A, rt.parameters), Weight(rt, scaled(rt, f.B, f.scale), "lora_embedding_B")});
      });
}

ConvTaps adapted_taps(const Runtime& rt, const Adapters& adapters, const std::string& parameter, const Tensor& w) {
  ConvTaps taps(conv_taps(w, rt.parameters));
  taps.adapted = of_all<Tensor>(adapters, parameter, [&](const Adapter&, const LowRankFactors& f) {
    return conv_taps(changed(rt, w, f), rt.parameters);
  });
  return taps;
}

}  // namespace krait
