#include "krait/ops/recurrence.h"

#include <fmt/format.h>

#include "krait/core/error.h"
#include "krait/ops/basic.h"

namespace krait {
namespace {

const float* data_or_null(const Tensor& t) { return t.defined() ? t.f32() : nullptr; }
int64_t ld_or_zero(const Tensor& t) { return t.defined() ? t.stride(0) : 0; }

void check_shape(const char* op, const char* name, const Tensor& t, const Shape& want) {
  if (t.shape() == want && t.is_contiguous()) return;
  throw Error(ErrorCode::kInternal, fmt::format("[{}] {} is {}, expected {}", op, name, t.shape().str(), want.str()));
}

}  // namespace

Tensor causal_conv(ForwardContext& ctx, const Tensor& x, const Tensor& w, const Tensor& b, bool silu, Tensor& state) {
  const int64_t T = x.dim(0), C = x.dim(1), W = w.dim(0);
  check_rows("causal_conv", "x", x, ctx.spans.n_tokens(), -1);
  check_shape("causal_conv", "w", w, {W, C});
  check_shape("causal_conv", "state", state, {state.dim(0), W - 1, C});
  Tensor y = Tensor::empty({T, C});
  CausalConvParams p{};
  p.spans = ctx.span_view();
  p.x = x.f32();
  p.ldx = x.stride(0);
  p.w = w.f32();
  p.b = data_or_null(b);
  p.silu = silu;
  p.y = y.f32();
  p.ldy = C;
  p.state = state.f32();
  p.state_stride = state.stride(0);
  p.C = C;
  p.W = W;
  ctx.kernels().causal_conv(ctx.exec(), p);
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
  Tensor y = Tensor::empty({T, E});
  Mamba1ScanParams p{};
  p.spans = ctx.span_view();
  p.x = a.x.f32();
  p.ldx = a.x.stride(0);
  p.dt = a.dt.f32();
  p.lddt = a.dt.stride(0);
  p.B = a.B.f32();
  p.ldb = a.B.stride(0);
  p.C = a.C.f32();
  p.ldc = a.C.stride(0);
  p.z = data_or_null(a.z);
  p.ldz = ld_or_zero(a.z);
  p.A = a.A.f32();
  p.D = data_or_null(a.D);
  p.dt_bias = data_or_null(a.dt_bias);
  p.softplus = true;
  p.y = y.f32();
  p.ldy = E;
  p.state = state.f32();
  p.state_stride = state.stride(0);
  p.E = E;
  p.N = N;
  ctx.kernels().mamba1_scan(ctx.exec(), p);
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
  Tensor y = Tensor::empty({T, a.H * a.P});
  SsdScanParams p{};
  p.spans = ctx.span_view();
  p.x = a.x.f32();
  p.ldx = a.x.stride(0);
  p.dt = a.dt.f32();
  p.lddt = a.dt.stride(0);
  p.B = a.B.f32();
  p.ldb = a.B.stride(0);
  p.C = a.C.f32();
  p.ldc = a.C.stride(0);
  p.A = a.A.f32();
  p.D = data_or_null(a.D);
  p.D_per_channel = a.D.defined() && a.D.numel() != a.H;
  p.dt_bias = data_or_null(a.dt_bias);
  p.dt_min = a.dt_min;
  p.dt_max = a.dt_max;
  p.y = y.f32();
  p.ldy = y.dim(1);
  p.state = state.f32();
  p.state_stride = state.stride(0);
  p.H = a.H;
  p.P = a.P;
  p.N = a.N;
  p.G = a.G;
  ctx.kernels().ssd_scan(ctx.exec(), p);
  return y;
}

Tensor mamba3_scan(ForwardContext& ctx, const Mamba3Scan& a, Tensor& phase, Tensor& S, Tensor& k, Tensor& x_prev) {
  const int64_t T = ctx.spans.n_tokens();
  const int64_t ld = a.z.stride(0);
  const auto rows = [&](const char* name, const Tensor& t, int64_t width) {
    check_rows("mamba3_scan", name, t, T, width);
    if (t.dim(0) > 1 && t.stride(0) != ld) {
      throw Error(ErrorCode::kInternal,
                  fmt::format("[mamba3_scan] {} has row stride {}, z has {}", name, t.stride(0), ld));
    }
    return t.f32();
  };
  Tensor out = Tensor::empty({T, a.H * a.P});
  Mamba3ScanParams p{};
  p.spans = ctx.span_view();
  p.z = rows("z", a.z, a.H * a.P);
  p.x = rows("x", a.x, a.H * a.P);
  p.B = rows("B", a.B, a.R * a.G * a.N);
  p.C = rows("C", a.C, a.R * a.G * a.N);
  p.dd_dt = rows("dd_dt", a.dd_dt, a.H);
  p.dd_A = rows("dd_A", a.dd_A, a.H);
  p.trap = rows("trap", a.trap, a.H);
  p.angle = rows("angle", a.angle, a.F);
  p.ld = ld;
  p.dt_bias = a.dt_bias.f32();
  p.B_bias = a.B_bias.f32();
  p.C_bias = a.C_bias.f32();
  p.B_norm = a.B_norm.f32();
  p.C_norm = a.C_norm.f32();
  p.D = a.D.f32();
  p.mimo_x = data_or_null(a.mimo_x);
  p.mimo_z = data_or_null(a.mimo_z);
  p.mimo_o = data_or_null(a.mimo_o);
  p.out_norm = data_or_null(a.out_norm);
  p.eps = a.eps;
  p.A_floor = a.A_floor;
  p.softplus_A = a.softplus_A;
  p.pairing = a.pairing;
  p.out = out.f32();
  p.ldo = out.dim(1);
  check_shape("mamba3_scan", "phase", phase, {phase.dim(0), a.H, a.F});
  check_shape("mamba3_scan", "S", S, {S.dim(0), a.H, a.N, a.P});
  check_shape("mamba3_scan", "k", k, {k.dim(0), a.R, a.H, a.N});
  check_shape("mamba3_scan", "x_prev", x_prev, {x_prev.dim(0), a.H * a.P});
  p.phase = phase.data<int32_t>();
  p.phase_stride = phase.stride(0);
  p.S = S.f32();
  p.S_stride = S.stride(0);
  p.k = k.f32();
  p.k_stride = k.stride(0);
  p.x_prev = x_prev.f32();
  p.x_prev_stride = x_prev.stride(0);
  p.H = a.H;
  p.P = a.P;
  p.N = a.N;
  p.G = a.G;
  p.R = a.R;
  p.F = a.F;
  ctx.kernels().mamba3_scan(ctx.exec(), p);
  return out;
}

}  // namespace krait
