#include "krait/ops/basic.h"

#include <fmt/format.h>

#include <algorithm>

#include "krait/core/error.h"
#include "krait/ops/backward.h"
#include "krait/ops/calls.h"
#include "krait/ops/low_rank.h"
#include "krait/ops/optional.h"

namespace krait {
namespace {

Tensor run_norm(ForwardContext& ctx, const Tensor& x, Tensor* residual, const NormWeights& n, int64_t T, int64_t D) {
  Tensor y = Tensor::empty({T, D});
  NormParams p{};
  p.kind = n.kind;
  p.x = data_or_null(x);
  p.ldx = x.defined() ? x.stride(0) : 0;
  p.residual = residual ? residual->f32() : nullptr;
  p.w = data_or_null(n.w);
  p.b = data_or_null(n.b);
  p.eps = n.eps;
  p.y = y.f32();
  p.ldy = D;
  p.T = T;
  p.D = D;
  ctx.kernels().norm(ctx.exec(), p);
  return y;
}

}  // namespace

void check_rows(const char* op, const char* name, const Tensor& x, int64_t rows, int64_t D) {
  const bool ok = x.dtype() == DType::kF32 && x.rank() == 2 && (rows < 0 || x.dim(0) == rows) &&
                  (D < 0 || x.dim(1) == D) && (x.dim(1) <= 1 || x.stride(1) == 1);
  if (!ok) {
    throw Error(ErrorCode::kInternal, fmt::format("[{}] {} is {} {}, expected f32 rows [{}, {}]", op, name,
                                                  name_of(x.dtype()), x.shape().str(), rows, D));
  }
}

Tensor linear(ForwardContext& ctx, const Tensor& x, const Weight& w, const Tensor& bias) {
  if (x.rank() != 2 || x.dim(1) != w.K()) {
    throw Error(ErrorCode::kInternal, fmt::format("[matmul] x is {}, weight wants K = {}", x.shape().str(), w.K()));
  }
  check_rows("matmul", "x", x, -1, w.K());
  if (ctx.runtime.observer != nullptr) ctx.runtime.observer->matmul(w.name(), x);
  Tensor y = Tensor::empty({x.dim(0), w.N()});
  run_matmul(ctx.runtime, x, w, bias, y);
  if (ctx.training()) backward::linear(ctx, x, w, bias, y);
  if (w.adapted()) add_low_rank(ctx, x, w, y);
  return y;
}

Tensor norm(ForwardContext& ctx, const Tensor& x, const NormWeights& n) {
  check_rows("norm", "x", x, -1, -1);
  Tensor y = run_norm(ctx, x, nullptr, n, x.dim(0), x.dim(1));
  if (ctx.training()) backward::norm(ctx, x, n, y);
  return y;
}

Tensor add_norm(ForwardContext& ctx, const Tensor& x, Tensor& residual, const NormWeights& n) {
  if (!x.defined()) return norm(ctx, residual, n);
  check_rows("norm", "x", x, residual.dim(0), residual.dim(1));
  if (ctx.training()) {
    add_(ctx, residual, x);
    return norm(ctx, residual, n);
  }
  return run_norm(ctx, x, &residual, n, x.dim(0), x.dim(1));
}

void rms_norm_(ForwardContext& ctx, Tensor& x, float eps) {
  check_rows("norm", "x", x, -1, -1);
  if (ctx.training()) {
    NormWeights weightless;
    weightless.eps = eps;
    x = norm(ctx, x, weightless);
    return;
  }
  NormParams p{};
  p.kind = NormKind::kRms;
  p.x = x.f32();
  p.ldx = x.stride(0);
  p.eps = eps;
  p.y = x.f32();
  p.ldy = x.stride(0);
  p.T = x.dim(0);
  p.D = x.dim(1);
  ctx.kernels().norm(ctx.exec(), p);
}

void gated_norm_(ForwardContext& ctx, Tensor& y, const Tensor& z, const Tensor& w, int64_t G, float eps,
                 bool norm_before_gate) {
  check_rows("gated_norm", "y", y, -1, w.numel());
  check_rows("gated_norm", "z", z, y.dim(0), y.dim(1));
  Tensor out = ctx.training() ? Tensor::empty(y.shape()) : y;
  GatedNormParams p{};
  p.y = y.f32();
  p.ldy = y.stride(0);
  p.z = z.f32();
  p.ldz = z.stride(0);
  p.w = w.f32();
  p.eps = eps;
  p.norm_before_gate = norm_before_gate;
  p.out = out.f32();
  p.ldo = out.stride(0);
  p.T = y.dim(0);
  p.D = y.dim(1);
  p.G = G;
  ctx.kernels().gated_norm(ctx.exec(), p);
  if (ctx.training()) backward::gated_norm(ctx, y, z, w, G, eps, norm_before_gate, out);
  y = out;
}

void silu_gate(ForwardContext& ctx, const Tensor& a, const Tensor& gate, Tensor& out) {
  check_rows("silu_gate", "gate", gate, a.dim(0), a.dim(1));
  check_rows("silu_gate", "out", out, a.dim(0), a.dim(1));
  const Tensor in = a;
  if (ctx.training() && out.bytes() == in.bytes()) out = Tensor::empty(in.shape());
  SiluGateParams p{in.f32(), in.stride(0), gate.f32(), gate.stride(0), out.f32(), out.stride(0), in.dim(0), in.dim(1)};
  ctx.kernels().silu_gate(ctx.exec(), p);
  if (ctx.training()) backward::silu_gate(ctx, in, gate, out);
}

void add_(ForwardContext& ctx, Tensor& residual, const Tensor& x) {
  check_rows("add", "x", x, residual.dim(0), residual.dim(1));
  const Tensor& term = ctx.training() ? residual : x;
  Tensor sum = ctx.training() ? x : residual;
  run_add(ctx.runtime, term, sum);
  if (ctx.training()) backward::add(ctx, term, sum);
  residual = sum;
}

void copy_(ForwardContext& ctx, Tensor& to, const Tensor& from) {
  check_rows("copy", "from", from, to.dim(0), to.dim(1));
  for (int64_t t = 0; t < from.dim(0); ++t) {
    std::copy_n(from.f32() + t * from.stride(0), from.dim(1), to.f32() + t * to.stride(0));
  }
  if (ctx.training()) backward::copy(ctx, from, to);
}

Tensor embed(ForwardContext& ctx, const Tensor& table, std::span<const int32_t> ids, bool tied) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= table.dim(0)) {
      fail_data(
          fmt::format("[embed] id {} at position {} is outside the vocabulary 0..{}", ids[i], i, table.dim(0) - 1));
    }
  }
  Tensor y = Tensor::empty({static_cast<int64_t>(ids.size()), table.dim(1)});
  EmbedParams p{table.bytes(), table.dtype(), ids.data(), y.f32(), static_cast<int64_t>(ids.size()), table.dim(1)};
  ctx.kernels().embed(ctx.exec(), p);
  if (ctx.training()) backward::embed(ctx, table, ids, tied, y);
  return y;
}

}  // namespace krait
