// Distillation of a row: the largest of both, the sums of exponentials, the distance, then the gradient.
#include <math.h>
#include <string.h>

#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/sums.h"
#include "krait/backends/cpu/isa/tasks.h"
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {
namespace {

void row(const DistillParams& p, int64_t t) {
  const float* x = p.logits + t * p.ldl;
  float* q = p.teacher + t * p.ldt;
  const float weight = p.weight != nullptr ? p.weight[t] : 1.0f;
  p.kl[t] = 0;
  if (p.target[t] < 0 || weight == 0) {
    if (p.grad) memset(q, 0, static_cast<size_t>(p.V) * sizeof(float));
    return;
  }
  const float inverse = 1.0f / p.temperature;
  const Vec most_x = set1(largest(x, p.V)), most_q = set1(largest(q, p.V)), by = set1(inverse);
  const auto of_x = [&](int64_t v, auto lanes) { return mul(sub(load(x + v, lanes), most_x), by); };
  const auto of_q = [&](int64_t v, auto lanes) { return mul(sub(load(q + v, lanes), most_q), by); };
  const float sum_x = sum_of(p.V, [&](int64_t v, auto lanes) { return exp(of_x(v, lanes)); });
  const float sum_q = sum_of(p.V, [&](int64_t v, auto lanes) { return exp(of_q(v, lanes)); });
  const float apart = sum_of(p.V, [&](int64_t v, auto lanes) {
    const Vec a = of_q(v, lanes);
    return mul(exp(a), sub(a, of_x(v, lanes)));
  });
  p.kl[t] = apart / sum_q + (logf(sum_x) - logf(sum_q));
  if (!p.grad) return;
  const float slope = weight * p.scale * inverse;
  const Vec by_x = set1(slope / sum_x), by_q = set1(slope / sum_q);
  for_vectors(p.V, [&](int64_t v, auto lanes) {
    store(q + v, sub(mul(exp(of_x(v, lanes)), by_x), mul(exp(of_q(v, lanes)), by_q)), lanes);
  });
}

}  // namespace

void distill(const Exec& exec, const DistillParams& p) {
  parallel_items(exec, p.T, p.V / kLanes * 90, [&](int64_t t) { row(p, t); });
}

}  // namespace krait::KRAIT_ISA
