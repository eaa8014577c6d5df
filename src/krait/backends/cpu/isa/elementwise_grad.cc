// Gradients of the gate and of the embedding lookup.
#include "krait/backends/cpu/isa/integers.h"
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/tasks.h"
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {

void silu_gate_grad(const Exec& exec, const SiluGateGradParams& p) {
  const SiluGateParams& f = p.f;
  parallel_items(exec, f.T, f.D / kLanes * 40, [&](int64_t t) {
    const float* a = f.a + t * f.lda;
    const float* gate = f.gate + t * f.ldg;
    const float* dout = p.dout + t * p.lddout;
    float* da = p.da + t * p.ldda;
    float* dgate = p.dgate + t * p.lddg;
    for_vectors(f.D, [&](int64_t d, auto lanes) {
      const Vec u = load(gate + d, lanes), s = sigmoid(u), g = load(dout + d, lanes);
      store(da + d, fma(g, mul(u, s), load(da + d, lanes)), lanes);
      store(dgate + d, fma(mul(g, load(a + d, lanes)), silu_slope(u, s), load(dgate + d, lanes)), lanes);
    });
  });
}

// Several tokens may have one id: threads share the columns, in whole cache lines.
void embed_grad(const Exec& exec, const EmbedGradParams& p) {
  constexpr int64_t kLine = 16;
  const int64_t lines = ceil_div(p.D, kLine);
  const int64_t cols = kLine * ceil_div(lines, min(lines, exec.pool->n_threads()));
  exec.pool->parallel_for(ceil_div(p.D, cols), [&](int64_t task) {
    const int64_t first = task * cols, n = min(cols, p.D - first);
    for (int64_t t = 0; t < p.T; ++t) {
      const float* dy = p.dy + t * p.lddy + first;
      float* row = p.dtable + p.ids[t] * p.D + first;
      for_vectors(
          n, [&](int64_t d, auto lanes) { store(row + d, add(load(row + d, lanes), load(dy + d, lanes)), lanes); });
    }
  });
}

}  // namespace krait::KRAIT_ISA
