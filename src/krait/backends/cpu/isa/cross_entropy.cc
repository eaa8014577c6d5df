// Cross-entropy of a row of logits: one pass for the largest, one for the sum of exponentials, which takes their place,
// one that makes them the gradient.
#include <math.h>
#include <string.h>

#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/sums.h"
#include "krait/backends/cpu/isa/tasks.h"
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {
namespace {

void row(const CrossEntropyParams& p, int64_t t) {
  float* x = p.logits + t * p.ldl;
  const int32_t target = p.target[t];
  const float weight = p.weight != nullptr ? p.weight[t] : 1.0f;
  p.nll[t] = p.lse_out[t] = 0;
  if (target < 0 || weight == 0) {
    if (p.grad) memset(x, 0, static_cast<size_t>(p.columns) * sizeof(float));
    return;
  }
  const float most = largest(x, p.V), at_target = x[target];
  const Vec shift = set1(most);
  const float sum = sum_of(p.V, [&](int64_t v, auto lanes) {
    const Vec e = exp(sub(load(x + v, lanes), shift));
    if (p.grad) store(x + v, e, lanes);
    return e;
  });
  const float log_sum = logf(sum), lse = most + log_sum;
  p.lse_out[t] = lse;
  p.nll[t] = most - at_target + log_sum;
  if (!p.grad) return;
  const float scale = weight * p.scale;
  const Vec softmax = set1(scale * (1.0f + 2.0f * p.z_loss * lse) / sum);
  for_vectors(p.V, [&](int64_t v, auto lanes) { store(x + v, mul(load(x + v, lanes), softmax), lanes); });
  x[target] -= scale;
  memset(x + p.V, 0, static_cast<size_t>(p.columns - p.V) * sizeof(float));
}

}  // namespace

void cross_entropy(const Exec& exec, const CrossEntropyParams& p) {
  parallel_items(exec, p.T, p.V / kLanes * 25, [&](int64_t t) { row(p, t); });
}

}  // namespace krait::KRAIT_ISA
