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
  if (o.teacher != nullptr) {
    const Teacher& teacher = *o.teacher;
    check_rows("cross_entropy", "the teacher's x", teacher.x, x.dim(0), teacher.head.K());
    if (teacher.head.N() < o.vocab_size || !(teacher.temperature > 0)) {
      throw Error(ErrorCode::kInternal, fmt::format("[cross_entropy] {} ids, the teacher has {}; temperature {}",
                                                    o.vocab_size, teacher.head.N(), teacher.temperature));
    }
  }
  for (size_t i = 0; i < o.targets.size(); ++i) {
    if (o.targets[i] < o.vocab_size) continue;
    fail_data(fmt::format("[cross_entropy] target {} at position {} is outside the vocabulary 0..{}", o.targets[i], i,
                          o.vocab_size - 1));
  }
}

// The teacher's share of the loss of some rows.
class Distillation {
 public:
  Distillation(const LossOptions& o, int64_t T, bool grad) : o_(o), grad_(grad) {
    if (o.teacher == nullptr) return;
    kl_ = Tensor::empty({T});
    logits_ = Tensor::empty({std::min(kRows, T), o.teacher->head.N()});
  }
  // Rows [t, t + n); `part` [n, V']: the model's logits.
  void read(const Runtime& rt, const Tensor& part, int64_t t, int64_t n) {
    if (o_.teacher == nullptr) return;
    const Teacher& teacher = *o_.teacher;
    rows_ = logits_.narrow(0, 0, n);
    run_matmul(teacher.runtime, teacher.x.narrow(0, t, n), teacher.head, {}, rows_);
    const float heat = teacher.temperature;
    rt.kernels->distill(
        rt.exec(), {part.f32(), part.stride(0), rows_.f32(), rows_.stride(0), o_.targets.data() + t,
                    o_.weights.empty() ? nullptr : o_.weights.data() + t, o_.scale * teacher.weight * heat * heat, heat,
                    grad_, kl_.f32() + t, n, o_.vocab_size});
  }
  // To the gradient of the same rows by the logits.
  void add_gradient(const Runtime& rt, const Tensor& part) const {
    if (o_.teacher != nullptr) run_add(rt, rows_.narrow(1, 0, o_.vocab_size), part.narrow(1, 0, o_.vocab_size));
  }
  float share_of_targets() const { return o_.teacher != nullptr ? 1 - o_.teacher->weight : 1; }
  const Tensor& kl() const { return kl_; }

 private:
  const LossOptions& o_;
  bool grad_;
  Tensor kl_, logits_, rows_;
};

}  // namespace

TokenLosses cross_entropy(ForwardContext& ctx, const Tensor& x, const Weight& head, const LossOptions& o) {
  check(x, head, o);
  const Runtime& rt = ctx.runtime;
  const int64_t T = x.dim(0), D = head.K();
  Distillation distillation(o, T, ctx.training());
  TokenLosses out{Tensor::empty({T}), Tensor::empty({T}), distillation.kl()};
  const float scale = o.scale * distillation.share_of_targets();
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
    distillation.read(rt, part, t, n);
    CrossEntropyParams p{
        part.f32(), head.N(), head.N(),       o.targets.data() + t, o.weights.empty() ? nullptr : o.weights.data() + t,
        scale,      o.z_loss, ctx.training(), out.nll.f32() + t,    out.lse.f32() + t,
        n,          head.N()};
    rt.kernels->cross_entropy(rt.exec(), p);
    if (!ctx.training()) continue;
    distillation.add_gradient(rt, part);
    if (dw.defined()) {
      const MatmulGradParams g{part.f32(), head.N(), rows.f32(), rows.stride(0), dw.f32(), nullptr, n, head.N(), D};
      rt.kernels->matmul_grad(rt.exec(), g);
    }
    run_matmul(rt, part, *transposed, {}, dx.narrow(0, t, n));
  }
  return out;
}

}  // namespace krait
