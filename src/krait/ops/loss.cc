#include "krait/ops/loss.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "krait/core/error.h"
#include "krait/ops/basic.h"
#include "krait/ops/calls.h"

namespace krait {
namespace {

constexpr int64_t kRows = 256;  // of logits at a time

void check(const Tensor& x, const Weight& head, const LossOptions& o) {
  check_rows("cross_entropy", "x", x, static_cast<int64_t>(o.targets.size()), head.K());
  if (o.vocab_size < 1 || o.vocab_size > head.N() || (!o.weights.empty() && o.weights.size() != o.targets.size())) {
    throw Error(ErrorCode::kInternal,
                fmt::format("[cross_entropy] {} ids of a head of {} rows, {} weights for {} targets", o.vocab_size,
                            head.N(), o.weights.size(), o.targets.size()));
  }
  for (size_t i = 0; i < o.targets.size(); ++i) {
    if (o.targets[i] < o.vocab_size) continue;
    fail_data(fmt::format("[cross_entropy] target {} at position {} is outside the vocabulary 0..{}", o.targets[i], i,
                          o.vocab_size - 1));
  }
}

}  // namespace

TokenLosses cross_entropy(ForwardContext& ctx, const Tensor& x, const Weight& head, const LossOptions& o) {
  check(x, head, o);
  const Runtime& rt = ctx.runtime;
  const int64_t T = x.dim(0), D = head.K();
  TokenLosses out{Tensor::empty({T}), Tensor::empty({T})};
  Tensor logits = Tensor::empty({std::min(kRows, T), head.N()}), dx, dw;
  std::optional<Weight> transposed;
  if (ctx.training()) {
    transposed = head.transposed(rt);
    dx = ctx.tape->gradients().claim(x);
    dw = ctx.tape->gradients().if_watched(head.rows());
    if (!dx.defined()) throw Error(ErrorCode::kInternal, "[cross_entropy] x is used by another op");
  }
  for (int64_t t = 0; t < T; t += kRows) {
    const int64_t n = std::min(kRows, T - t);
    const Tensor rows = x.narrow(0, t, n);
    Tensor part = logits.narrow(0, 0, n);
    run_matmul(rt, rows, head, {}, part);
    CrossEntropyParams p{
        part.f32(), head.N(), head.N(),       o.targets.data() + t, o.weights.empty() ? nullptr : o.weights.data() + t,
        o.scale,    o.z_loss, ctx.training(), out.nll.f32() + t,    out.lse.f32() + t,
        n,          head.N()};
    rt.kernels->cross_entropy(rt.exec(), p);
    if (!ctx.training()) continue;
    if (dw.defined()) {
      const MatmulGradParams g{part.f32(), head.N(), rows.f32(), rows.stride(0), dw.f32(), nullptr, n, head.N(), D};
      rt.kernels->matmul_grad(rt.exec(), g);
    }
    run_matmul(rt, part, *transposed, {}, dx.narrow(0, t, n));
  }
  return out;
}

}  // namespace krait
