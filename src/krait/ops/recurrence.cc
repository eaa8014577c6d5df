#include "krait/ops/recurrence.h"

#include <fmt/format.h>

#include "krait/core/error.h"
#include "krait/ops/backward.h"
#include "krait/ops/low_rank.h"
#include "krait/ops/optional.h"
#include "krait/ops/recurrence_params.h"
#include "krait/ops/states.h"

namespace krait {
namespace {

void check_shape(const char* op, const char* name, const Tensor& t, const Shape& want) {
  if (t.shape() == want && t.is_contiguous()) return;
  throw Error(ErrorCode::kInternal, fmt::format("[{}] {} is {}, expected {}", op, name, t.shape().str(), want.str()));
}

// All sequences of the context, with one set of taps; x and y are their rows.
void convolve(ForwardContext& ctx, const Tensor& x, const Tensor& w, const Tensor& b, bool silu, Tensor& state,
              Tensor y) {
  const Tensor before = ctx.training() ? gather_states(ctx.spans, state) : Tensor{};
  CausalConvParams p = conv_params(x, w, b, silu);
  p.spans = ctx.span_view();
  p.y = y.f32();
  p.ldy = y.stride(0);
  p.state = state.f32();
  p.state_stride = state.stride(0);
  ctx.kernels().causal_conv(ctx.exec(), p);
  if (ctx.training()) backward::causal_conv(ctx, x, w, b, silu, before, state, y);
}

SeqSpans part_of(const SeqSpans& all, const AdapterRun& run) {
  SeqSpans part;
  for (int64_t s = run.first_seq; s < run.first_seq + run.n_seqs; ++s) {
    part.add(all.length(s), all.slot[static_cast<size_t>(s)], run.adapter);
  }
  return part;
}

}  // namespace

const Tensor& ConvTaps::of(int32_t adapter) const {
  if (adapter < 0 || adapted.empty()) return base;
  const Tensor& own = adapted[static_cast<size_t>(adapter)];
  return own.defined() ? own : base;
}

Tensor causal_conv(ForwardContext& ctx, const Tensor& x, const ConvTaps& w, const Tensor& b, bool silu, Tensor& state) {
  const int64_t T = x.dim(0), C = x.dim(1), W = w.base.dim(0);
  check_rows("causal_conv", "x", x, ctx.spans.n_tokens(), -1);
  check_shape("causal_conv", "w", w.base, {W, C});
  check_shape("causal_conv", "state", state, {state.dim(0), W - 1, C});
  Tensor y = Tensor::empty({T, C});
  if (w.adapted.empty()) {
    convolve(ctx, x, w.base, b, silu, state, y);
    return y;
  }
  for (const AdapterRun& run : adapter_runs(ctx)) {
    const SeqSpans part = part_of(ctx.spans, run);
    ForwardContext mine{ctx.runtime, part, ctx.tape};
    convolve(mine, x.narrow(0, run.first, run.length), w.of(run.adapter), b, silu, state,
             y.narrow(0, run.first, run.length));
  }
  return y;
}

Tensor mamba1_scan(ForwardContext& ctx, const Mamba1Scan& a, Tensor& state) {
  const int64_t T = ctx.spans.n_tokens(), E = a.x.dim(1), N = a.B.dim(1);
  check_rows("mamba1_scan", "x", a.x, T, E);
  check_rows("mamba1_scan", "dt", a.dt, T, E);
  check_rows("mamba1_scan", "B", a.B, T, N);
  check_rows("mamba1_scan", "C", a.C, T, N);
  if (a.z.defined()) check_rows("mamba1_scan", "z", a.z, T, E);
  check_shape("mamba1_scan", "A", a.A, {N, E});
  check_shape("mamba1_scan", "state", state, {state.dim(0), N, E});
  const Tensor before = ctx.training() ? gather_states(ctx.spans, state) : Tensor{};
  Tensor y = Tensor::empty({T, E});
  Mamba1ScanParams p = scan_params(a);
  p.spans = ctx.span_view();
  p.y = y.f32();
  p.ldy = E;
  p.state = state.f32();
  p.state_stride = state.stride(0);
  ctx.kernels().mamba1_scan(ctx.exec(), p);
  if (ctx.training()) backward::mamba1_scan(ctx, a, before, state, y);
  return y;
}

Tensor ssd_scan(ForwardContext& ctx, const SsdScan& a, Tensor& state) {
  const int64_t T = ctx.spans.n_tokens();
  check_rows("ssd_scan", "x", a.x, T, a.H * a.P);
  check_rows("ssd_scan", "dt", a.dt, T, a.H);
  check_rows("ssd_scan", "B", a.B, T, a.G * a.N);
  check_rows("ssd_scan", "C", a.C, T, a.G * a.N);
  check_shape("ssd_scan", "A", a.A, {a.H});
  check_shape("ssd_scan", "state", state, {state.dim(0), a.H, a.N, a.P});
  const Tensor before = ctx.training() ? gather_states(ctx.spans, state) : Tensor{};
  Tensor y = Tensor::empty({T, a.H * a.P});
  SsdScanParams p = scan_params(a);
  p.spans = ctx.span_view();
  p.y = y.f32();
  p.ldy = y.dim(1);
  p.state = state.f32();
  p.state_stride = state.stride(0);
  ctx.kernels().ssd_scan(ctx.exec(), p);
  if (ctx.training()) backward::ssd_scan(ctx, a, before, state, y);
  return y;
}

Tensor mamba3_scan(ForwardContext& ctx, const Mamba3Scan& a, Tensor& phase, Tensor& S, Tensor& k, Tensor& x_prev) {
  const int64_t T = ctx.spans.n_tokens();
  const auto check_row = [&](const char* name, const Tensor& t, int64_t width) {
    check_rows("mamba3_scan", name, t, T, width);
    if (t.dim(0) > 1 && t.stride(0) != a.z.stride(0)) {
      throw Error(ErrorCode::kInternal,
                  fmt::format("[mamba3_scan] {} has row stride {}, z has {}", name, t.stride(0), a.z.stride(0)));
    }
  };
  check_row("z", a.z, a.H * a.P);
  check_row("x", a.x, a.H * a.P);
  check_row("B", a.B, a.R * a.G * a.N);
  check_row("C", a.C, a.R * a.G * a.N);
  check_row("dd_dt", a.dd_dt, a.H);
  check_row("dd_A", a.dd_A, a.H);
  check_row("trap", a.trap, a.H);
  check_row("angle", a.angle, a.F);
  check_shape("mamba3_scan", "phase", phase, {phase.dim(0), a.H, a.F});
  check_shape("mamba3_scan", "S", S, {S.dim(0), a.H, a.N, a.P});
  check_shape("mamba3_scan", "k", k, {k.dim(0), a.R, a.H, a.N});
  check_shape("mamba3_scan", "x_prev", x_prev, {x_prev.dim(0), a.H * a.P});
  const backward::Mamba3States state{phase, S, k, x_prev};
  backward::Mamba3States before;
  if (ctx.training()) {
    const auto gather = [&](const Tensor& t) { return gather_states(ctx.spans, t); };
    before = {gather(phase), gather(S), gather(k), gather(x_prev)};
  }
  Tensor out = Tensor::empty({T, a.H * a.P});
  Mamba3ScanParams p = scan_params(a);
  p.spans = ctx.span_view();
  p.out = out.f32();
  p.ldo = out.dim(1);
  p.phase = phase.data<int32_t>();
  p.phase_stride = phase.stride(0);
  p.S = S.f32();
  p.S_stride = S.stride(0);
  p.k = k.f32();
  p.k_stride = k.stride(0);
  p.x_prev = x_prev.f32();
  p.x_prev_stride = x_prev.stride(0);
  ctx.kernels().mamba3_scan(ctx.exec(), p);
  if (ctx.training()) backward::mamba3_scan(ctx, a, before, state, out);
  return out;
}

}  // namespace krait
