#include "krait/mixers/transpose.h"

#include <algorithm>

namespace krait {
namespace {

// to [B, A] <- or += from [A, B]
template <bool kAdd>
void transpose(const float* from, int64_t A, int64_t B, float* to) {
  constexpr int64_t kRun = 16;  // of each output row, so that a cache line is written at once
  for (int64_t i0 = 0; i0 < A; i0 += kRun) {
    for (int64_t j = 0; j < B; ++j) {
      for (int64_t i = i0; i < std::min(i0 + kRun, A); ++i) {
        to[j * A + i] = kAdd ? to[j * A + i] + from[i * B + j] : from[i * B + j];
      }
    }
  }
}

template <bool kAdd>
void transpose_all(const Tensor& from, Tensor& to) {
  const int64_t A = from.dim(-2), B = from.dim(-1);
  for (int64_t i = 0; i < from.numel(); i += A * B) transpose<kAdd>(from.f32() + i, A, B, to.f32() + i);
}

}  // namespace

Tensor transposed(const Tensor& t, Tape* tape) {
  Tensor r = t.rank() == 2 ? Tensor::empty({t.dim(1), t.dim(0)}) : Tensor::empty({t.dim(0), t.dim(2), t.dim(1)});
  transpose_all<false>(t, r);
  if (tape != nullptr && tape->gradients().watched(t)) {
    Gradients& g = tape->gradients();
    g.watch(r);
    tape->record([&g, t, r] {
      Tensor dt = g.of(t);
      transpose_all<true>(g.of(r), dt);
    });
  }
  return r;
}

}  // namespace krait
