// What tests of whole models share: where data stands, loading, relative error, greedy decoding.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "krait/backends/cpu/cpu_backend.h"
#include "krait/infer/score.h"
#include "krait/models/load.h"

namespace krait::test {

namespace fs = std::filesystem;

inline fs::path shared(const std::string& below) { return fs::path(KRAIT_SHARED_DIR) / below; }

#define KRAIT_NEEDS_SHARED(path) \
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs reference data: " << (path)

inline ThreadPool& pool() {
  static ThreadPool p(ThreadPool::default_threads());
  return p;
}

inline Runtime runtime(const KernelSet& k = cpu_kernels(), Compute compute = Compute::kF32) {
  return {&k, &pool(), compute};
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.bytes(), b.bytes(), static_cast<size_t>(a.nbytes())) == 0;
}

// sqrt(Σ(a−b)² / Σb²)
template <class A, class B>
double relative_rms(const A* a, const B* b, int64_t n) {
  double num = 0, den = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    num += (x - y) * (x - y);
    den += y * y;
  }
  return std::sqrt(num / den);
}

// Logits [L, V] of one fresh sequence; `states` keeps the final state in slot 0.
inline Tensor all_logits(const Model& m, std::span<const int32_t> ids, SlotStore& states,
                         int64_t chunk = kPrefillChunk) {
  m.reset_state(states, 0);
  const int64_t V = m.padded_vocab_size();
  Tensor out = Tensor::empty({static_cast<int64_t>(ids.size()), V});
  score(
      m, states, 0, ids,
      [&](int64_t first, const Tensor& part) {
        std::copy_n(part.f32(), part.numel(), out.f32() + first * V);
        return true;
      },
      chunk);
  return out;
}

inline Tensor all_logits(const Model& m, std::span<const int32_t> ids) {
  SlotStore states(m.state_specs(), 1);
  return all_logits(m, ids, states);
}

// The prompt's greedy continuation: n ids.
inline std::vector<int32_t> greedy(const Model& m, std::span<const int32_t> prompt, int64_t n) {
  SlotStore states(m.state_specs(), 1);
  std::vector<int32_t> out, next(prompt.begin(), prompt.end());
  m.reset_state(states, 0);
  for (int64_t i = 0; i < n; ++i) {
    const auto T = static_cast<int64_t>(next.size());
    const int64_t last = T - 1;
    const Tensor l = m.forward(next, SeqSpans::one(T, 0), states, std::span(&last, 1));
    const auto best = static_cast<int32_t>(std::max_element(l.f32(), l.f32() + m.vocab_size()) - l.f32());
    out.push_back(best);
    next = {best};
  }
  return out;
}

}  // namespace krait::test
