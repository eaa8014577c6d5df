// RMSNorm, LayerNorm and gated RMSNorm.
#include "krait/backends/cpu/isa/norm_scale.h"
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/sums.h"
#include "krait/backends/cpu/isa/tasks.h"
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {
namespace {

void norm_row(const NormParams& p, int64_t t) {
  const float* r = p.x + t * p.ldx;
  if (p.residual != nullptr) {
    float* residual = p.residual + t * p.D;
    for_vectors(p.D, [&](int64_t d, auto lanes) {
      store(residual + d, add(load(residual + d, lanes), load(r + d, lanes)), lanes);
    });
    r = residual;
  }
  Vec mean = zero();
  if (p.kind == NormKind::kLayer) {
    const float total = sum_of(p.D, [&](int64_t d, auto lanes) { return load(r + d, lanes); });
    mean = set1(total / static_cast<float>(p.D));
  }
  const float squares = sum_of_squares(p.D, [&](int64_t d, auto lanes) { return sub(load(r + d, lanes), mean); });
  const Vec scale = scale_of(squares, p.D, p.eps);
  const float* b = p.kind == NormKind::kLayer ? p.b : nullptr;
  float* y = p.y + t * p.ldy;
  for_vectors(p.D, [&](int64_t d, auto lanes) {
    Vec v = mul(sub(load(r + d, lanes), mean), scale);
    if (p.w != nullptr) v = mul(v, load(p.w + d, lanes));
    if (b != nullptr) v = add(v, load(b + d, lanes));
    store(y + d, v, lanes);
  });
}

// One group of `n` channels of a row.
void gate_first(const float* y, const float* z, const float* w, float eps, float* out, int64_t n) {
  const float squares = sum_of_squares(n, [&](int64_t d, auto lanes) {
    const Vec u = mul(load(y + d, lanes), silu(load(z + d, lanes)));
    store(out + d, u, lanes);
    return u;
  });
  const Vec scale = scale_of(squares, n, eps);
  for_vectors(n, [&](int64_t d, auto lanes) {
    store(out + d, mul(load(out + d, lanes), mul(scale, load(w + d, lanes))), lanes);
  });
}

void norm_first(const float* y, const float* z, const float* w, float eps, float* out, int64_t n) {
  const float squares = sum_of_squares(n, [&](int64_t d, auto lanes) { return load(y + d, lanes); });
  const Vec scale = scale_of(squares, n, eps);
  for_vectors(n, [&](int64_t d, auto lanes) {
    const Vec v = mul(load(y + d, lanes), mul(scale, load(w + d, lanes)));
    store(out + d, mul(v, silu(load(z + d, lanes))), lanes);
  });
}

}  // namespace

void norm(const Exec& exec, const NormParams& p) {
  parallel_items(exec, p.T, p.D / kLanes * 12, [&](int64_t t) { norm_row(p, t); });
}

void gated_norm(const Exec& exec, const GatedNormParams& p) {
  const int64_t n = p.D / p.G;
  parallel_items(exec, p.T, p.D / kLanes * 40, [&](int64_t t) {
    for (int64_t d = 0; d < p.D; d += n) {
      (p.norm_before_gate ? norm_first : gate_first)(p.y + t * p.ldy + d, p.z + t * p.ldz + d, p.w + d, p.eps,
                                                     p.out + t * p.ldo + d, n);
    }
  });
}

}  // namespace krait::KRAIT_ISA
