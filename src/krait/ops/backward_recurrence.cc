#include "krait/ops/backward.h"
#include "krait/ops/optional.h"
#include "krait/ops/recurrence_params.h"

namespace krait::backward {
namespace {

SpanView view(const SeqSpans& s) { return {s.offset.data(), s.slot.data(), s.n_seqs()}; }

}  // namespace

void causal_conv(ForwardContext& ctx, const Tensor& x, const Tensor& w, const Tensor& b, bool silu,
                 const Tensor& before, const Tensor& state, const Tensor& y) {
  ctx.tape->record([&rt = ctx.runtime, &g = ctx.tape->gradients(), spans = ctx.spans, x, w, b, silu, before, state, y] {
    const Tensor dy = g.of(y);
    Tensor dx = g.of(x), dw = g.if_watched(w), db = g.if_watched(b), dstate = g.of(state);
    CausalConvGradParams p{};
    p.f = conv_params(x, w, b, silu);
    p.f.spans = view(spans);
    p.before = before.f32();
    p.dy = dy.f32();
    p.lddy = dy.stride(0);
    p.dx = dx.f32();
    p.lddx = dx.stride(0);
    p.dw = data_or_null(dw);
    p.db = data_or_null(db);
    p.dstate = dstate.f32();
    p.dstate_stride = dstate.stride(0);
    rt.kernels->causal_conv_grad(rt.exec(), p);
  });
}

namespace {

// What the scans of Mamba-1 and Mamba-2 have in common. The gradients of states and parameters are held by `g`.
template <class Params, class Scan>
Params scan_grad_params(Gradients& g, const SeqSpans& spans, const Scan& a, const Tensor& before, const Tensor& state,
                        const Tensor& y) {
  const Tensor dy = g.of(y);
  Tensor dx = g.of(a.x), ddt = g.of(a.dt), dB = g.of(a.B), dC = g.of(a.C), dstate = g.of(state);
  Tensor dA = g.if_watched(a.A), dD = g.if_watched(a.D), ddt_bias = g.if_watched(a.dt_bias);
  Params p{};
  p.f = scan_params(a);
  p.f.spans = view(spans);
  p.before = before.f32();
  p.dy = dy.f32();
  p.lddy = dy.stride(0);
  p.dx = dx.f32();
  p.lddx = dx.stride(0);
  p.ddt = ddt.f32();
  p.ldddt = ddt.stride(0);
  p.dB = dB.f32();
  p.lddB = dB.stride(0);
  p.dC = dC.f32();
  p.lddC = dC.stride(0);
  p.dA = data_or_null(dA);
  p.dD = data_or_null(dD);
  p.ddt_bias = data_or_null(ddt_bias);
  p.dstate = dstate.f32();
  p.dstate_stride = dstate.stride(0);
  return p;
}

}  // namespace

void mamba1_scan(ForwardContext& ctx, const Mamba1Scan& a, const Tensor& before, const Tensor& state, const Tensor& y) {
  ctx.tape->record([&rt = ctx.runtime, &g = ctx.tape->gradients(), spans = ctx.spans, a, before, state, y] {
    auto p = scan_grad_params<Mamba1ScanGradParams>(g, spans, a, before, state, y);
    Tensor dz = a.z.defined() ? g.of(a.z) : Tensor{};
    p.dz = data_or_null(dz);
    p.lddz = ld_or_zero(dz);
    rt.kernels->mamba1_scan_grad(rt.exec(), p);
  });
}

void ssd_scan(ForwardContext& ctx, const SsdScan& a, const Tensor& before, const Tensor& state, const Tensor& y) {
  ctx.tape->record([&rt = ctx.runtime, &g = ctx.tape->gradients(), spans = ctx.spans, a, before, state, y] {
    rt.kernels->ssd_scan_grad(rt.exec(), scan_grad_params<SsdScanGradParams>(g, spans, a, before, state, y));
  });
}

namespace {

// The gradients of the inputs and parameters of a Mamba-3 scan; undefined: not wanted.
struct Mamba3Gradients {
  Tensor z, x, B, C, dd_dt, dd_A, trap, angle;
  Tensor dt_bias, B_bias, C_bias, B_norm, C_norm, D, mimo_x, mimo_z, mimo_o, out_norm;

  Mamba3Gradients(Gradients& g, const Mamba3Scan& a)
      : z(g.of(a.z)),
        x(g.of(a.x)),
        B(g.of(a.B)),
        C(g.of(a.C)),
        dd_dt(g.of(a.dd_dt)),
        dd_A(g.of(a.dd_A)),
        trap(g.of(a.trap)),
        angle(g.of(a.angle)),
        dt_bias(g.if_watched(a.dt_bias)),
        B_bias(g.if_watched(a.B_bias)),
        C_bias(g.if_watched(a.C_bias)),
        B_norm(g.if_watched(a.B_norm)),
        C_norm(g.if_watched(a.C_norm)),
        D(g.if_watched(a.D)),
        mimo_x(g.if_watched(a.mimo_x)),
        mimo_z(g.if_watched(a.mimo_z)),
        mimo_o(g.if_watched(a.mimo_o)),
        out_norm(g.if_watched(a.out_norm)) {}

  void fill(Mamba3ScanGradParams& p) {
    p.dz = z.f32();
    p.dx = x.f32();
    p.dB = B.f32();
    p.dC = C.f32();
    p.ddd_dt = dd_dt.f32();
    p.ddd_A = dd_A.f32();
    p.dtrap = trap.f32();
    p.dangle = angle.f32();
    p.ldd = z.stride(0);
    p.ddt_bias = data_or_null(dt_bias);
    p.dB_bias = data_or_null(B_bias);
    p.dC_bias = data_or_null(C_bias);
    p.dB_norm = data_or_null(B_norm);
    p.dC_norm = data_or_null(C_norm);
    p.dD = data_or_null(D);
    p.dmimo_x = data_or_null(mimo_x);
    p.dmimo_z = data_or_null(mimo_z);
    p.dmimo_o = data_or_null(mimo_o);
    p.dout_norm = data_or_null(out_norm);
  }
};

}  // namespace

void mamba3_scan(ForwardContext& ctx, const Mamba3Scan& a, const Mamba3States& before, const Mamba3States& state,
                 const Tensor& out) {
  ctx.tape->record([&rt = ctx.runtime, &g = ctx.tape->gradients(), spans = ctx.spans, a, before, state, out] {
    const Tensor dout = g.of(out);
    Tensor dphase = g.of(state.phase), dS = g.of(state.S), dk = g.of(state.k), dx_prev = g.of(state.x_prev);
    Mamba3Gradients d(g, a);
    Mamba3ScanGradParams p{};
    p.f = scan_params(a);
    p.f.spans = view(spans);
    p.phase_before = before.phase.data<int32_t>();
    p.S_before = before.S.f32();
    p.k_before = before.k.f32();
    p.x_prev_before = before.x_prev.f32();
    p.dout = dout.f32();
    p.lddout = dout.stride(0);
    d.fill(p);
    p.dphase = dphase.f32();
    p.dphase_stride = dphase.stride(0);
    p.dS = dS.f32();
    p.dS_stride = dS.stride(0);
    p.dk = dk.f32();
    p.dk_stride = dk.stride(0);
    p.dx_prev = dx_prev.f32();
    p.dx_prev_stride = dx_prev.stride(0);
    rt.kernels->mamba3_scan_grad(rt.exec(), p);
  });
}

}  // namespace krait::backward
