// Gradients of the norms, a block of rows at a time: threads share the rows, each of which leaves what it adds to the
// weight's gradient; then they share the columns and add these up in the order of the rows.
#include "krait/backends/cpu/isa/norm_scale.h"
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/sums.h"
#include "krait/backends/cpu/isa/tasks.h"
#include "krait/backends/cpu/isa/vec.h"
#include "krait/backends/cpu/workspace.h"

namespace krait::KRAIT_ISA {
namespace {

constexpr int64_t kBlockFloats = 1 << 17;  // of a block of rows, 512 KB: stays in L2

// row(t, terms [D]) for all rows, about `cost` vector instructions each; sum[d] += its terms. sum may be null.
template <class F>
void rows_then_sum(const Exec& exec, int64_t T, int64_t D, int64_t cost, float* sum, F row) {
  const int64_t block = max(kBlockFloats / D, 4 * exec.pool->n_threads());
  auto* terms = static_cast<float*>(call_workspace(static_cast<size_t>(min(block, T) * D) * sizeof(float)));
  for (int64_t t0 = 0; t0 < T; t0 += block) {
    const int64_t n = min(block, T - t0);
    parallel_items(exec, n, cost, [&](int64_t i) { row(t0 + i, terms + i * D); });
    if (sum != nullptr) add_rows(exec, terms, D, n, D, sum);
  }
}

// With v = (r − mean)·scale and dv = dy·w: dr += scale·(dv − mean(dv) − v·mean(dv·v)), mean(dv) for kLayer only.
void norm_row(const NormGradParams& p, int64_t t, float* terms) {
  const float* r = p.r + t * p.ldr;
  const float* dy = p.dy + t * p.lddy;
  const bool layer = p.kind == NormKind::kLayer;
  const auto D = static_cast<float>(p.D);
  Vec mean = zero();
  if (layer) mean = set1(sum_of(p.D, [&](int64_t d, auto lanes) { return load(r + d, lanes); }) / D);
  const float squares = sum_of_squares(p.D, [&](int64_t d, auto lanes) { return sub(load(r + d, lanes), mean); });
  const Vec scale = scale_of(squares, p.D, p.eps);
  const auto weighted = [&](Vec g, int64_t d, auto lanes) { return p.w != nullptr ? mul(g, load(p.w + d, lanes)) : g; };
  const float sum_dv_v = sum_of(p.D, [&](int64_t d, auto lanes) {
    const Vec term = mul(load(dy + d, lanes), mul(sub(load(r + d, lanes), mean), scale));
    store(terms + d, term, lanes);
    return weighted(term, d, lanes);
  });
  Vec mean_dv = zero();
  if (layer) {
    const auto dv = [&](int64_t d, auto lanes) { return weighted(load(dy + d, lanes), d, lanes); };
    mean_dv = set1(sum_of(p.D, dv) / D);
  }
  const Vec mean_dv_v = set1(sum_dv_v / D);
  float* dr = p.dr + t * p.lddr;
  for_vectors(p.D, [&](int64_t d, auto lanes) {
    const Vec dv = weighted(load(dy + d, lanes), d, lanes), v = mul(sub(load(r + d, lanes), mean), scale);
    store(dr + d, fma(scale, fnma(v, mean_dv_v, sub(dv, mean_dv)), load(dr + d, lanes)), lanes);
  });
}

// One group of n channels of a row.
struct Group {
  const float *y, *z, *w, *dout;
  float *dy, *dz;
  float* terms;  // holds sigmoid(z) in between
  int64_t n;
  float eps;
};

// u = y·silu(z), v = u·scale, out = v·w
void gate_first(const Group& g) {
  Vec sum_weighted = zero();  // Σ dout·w·u
  const float squares = sum_of_squares(g.n, [&](int64_t d, auto lanes) {
    const Vec z = load(g.z + d, lanes), s = sigmoid(z), u = mul(load(g.y + d, lanes), mul(z, s));
    store(g.terms + d, s, lanes);
    sum_weighted = fma(mul(load(g.dout + d, lanes), load(g.w + d, lanes)), keep(u, lanes), sum_weighted);
    return u;
  });
  const Vec scale = scale_of(squares, g.n, g.eps);
  const Vec mean = mul(scale, set1(sum(sum_weighted) / static_cast<float>(g.n)));  // of dv·v
  for_vectors(g.n, [&](int64_t d, auto lanes) {
    const Vec y = load(g.y + d, lanes), z = load(g.z + d, lanes), s = load(g.terms + d, lanes), silu_z = mul(z, s);
    const Vec v = mul(mul(y, silu_z), scale), dout = load(g.dout + d, lanes);
    const Vec du = mul(scale, fnma(v, mean, mul(dout, load(g.w + d, lanes))));
    store(g.dy + d, fma(du, silu_z, load(g.dy + d, lanes)), lanes);
    store(g.dz + d, fma(mul(du, y), silu_slope(z, s), load(g.dz + d, lanes)), lanes);
    store(g.terms + d, mul(dout, v), lanes);
  });
}

// v = y·scale, out = v·w·silu(z)
void norm_first(const Group& g) {
  Vec sum_weighted = zero();  // Σ dout·silu(z)·w·y
  const float squares = sum_of_squares(g.n, [&](int64_t d, auto lanes) {
    const Vec z = load(g.z + d, lanes), s = sigmoid(z), y = load(g.y + d, lanes);
    store(g.terms + d, s, lanes);
    const Vec dv = mul(mul(load(g.dout + d, lanes), mul(z, s)), load(g.w + d, lanes));
    sum_weighted = fma(keep(dv, lanes), y, sum_weighted);
    return y;
  });
  const Vec scale = scale_of(squares, g.n, g.eps);
  const Vec mean = mul(scale, set1(sum(sum_weighted) / static_cast<float>(g.n)));  // of dv·v
  for_vectors(g.n, [&](int64_t d, auto lanes) {
    const Vec z = load(g.z + d, lanes), s = load(g.terms + d, lanes), v = mul(load(g.y + d, lanes), scale);
    const Vec dout = load(g.dout + d, lanes), w = load(g.w + d, lanes), dvw = mul(dout, mul(z, s));
    store(g.dy + d, fma(scale, fnma(v, mean, mul(dvw, w)), load(g.dy + d, lanes)), lanes);
    store(g.dz + d, fma(mul(mul(dout, v), w), silu_slope(z, s), load(g.dz + d, lanes)), lanes);
    store(g.terms + d, mul(dvw, v), lanes);
  });
}

}  // namespace

void norm_grad(const Exec& exec, const NormGradParams& p) {
  rows_then_sum(exec, p.T, p.D, p.D / kLanes * 20, p.dw, [&](int64_t t, float* terms) { norm_row(p, t, terms); });
  if (p.db != nullptr) add_rows(exec, p.dy, p.lddy, p.T, p.D, p.db);
}

void gated_norm_grad(const Exec& exec, const GatedNormGradParams& p) {
  const GatedNormParams& f = p.f;
  const int64_t n = f.D / f.G;
  rows_then_sum(exec, f.T, f.D, f.D / kLanes * 60, p.dw, [&](int64_t t, float* terms) {
    for (int64_t d = 0; d < f.D; d += n) {
      const Group g{f.y + t * f.ldy + d,
                    f.z + t * f.ldz + d,
                    f.w + d,
                    p.dout + t * p.lddout + d,
                    p.dy + t * p.lddy + d,
                    p.dz + t * p.lddz + d,
                    terms + d,
                    n,
                    f.eps};
      (f.norm_before_gate ? norm_first : gate_first)(g);
    }
  });
}

}  // namespace krait::KRAIT_ISA
