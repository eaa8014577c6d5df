#include "krait/ops/backward.h"

#include <vector>

#include "krait/ops/calls.h"
#include "krait/ops/optional.h"

namespace krait::backward {
namespace {

// dx += dy · W
void linear_input(const Runtime& rt, Gradients& g, const Tensor& dy, const Weight& w, const Tensor& x) {
  const Weight wt = w.transposed(rt);
  const Tensor whole = g.claim(x);
  Tensor dx = whole.defined() ? whole : Tensor::empty({x.dim(0), w.K()});
  run_matmul(rt, dy, wt, {}, dx);
  if (!whole.defined()) run_add(rt, dx, g.of(x));
}

}  // namespace

void linear(ForwardContext& ctx, const Tensor& x, const Weight& w, const Tensor& bias, const Tensor& y) {
  ctx.tape->record([&rt = ctx.runtime, &g = ctx.tape->gradients(), x, &w, bias, y] {
    const Tensor dy = g.of(y);
    Tensor dw = g.if_watched(w.rows()), db = g.if_watched(bias);
    if (dw.defined() || db.defined()) {
      const MatmulGradParams p{dy.f32(),         dy.stride(0), x.f32(), x.stride(0), data_or_null(dw),
                               data_or_null(db), x.dim(0),     w.N(),   w.K()};
      rt.kernels->matmul_grad(rt.exec(), p);
    }
    linear_input(rt, g, dy, w, x);
  });
}

void norm(ForwardContext& ctx, const Tensor& r, const NormWeights& n, const Tensor& y) {
  ctx.tape->record([&rt = ctx.runtime, &g = ctx.tape->gradients(), r, n, y] {
    const Tensor dy = g.of(y);
    Tensor dr = g.of(r), dw = g.if_watched(n.w), db = g.if_watched(n.b);
    NormGradParams p{};
    p.kind = n.kind;
    p.r = r.f32();
    p.ldr = r.stride(0);
    p.w = data_or_null(n.w);
    p.eps = n.eps;
    p.dy = dy.f32();
    p.lddy = dy.stride(0);
    p.dr = dr.f32();
    p.lddr = dr.stride(0);
    p.dw = data_or_null(dw);
    p.db = data_or_null(db);
    p.T = r.dim(0);
    p.D = r.dim(1);
    rt.kernels->norm_grad(rt.exec(), p);
  });
}

void gated_norm(ForwardContext& ctx, const Tensor& y, const Tensor& z, const Tensor& w, int64_t G, float eps,
                bool norm_before_gate, const Tensor& out) {
  ctx.tape->record([&rt = ctx.runtime, &g = ctx.tape->gradients(), y, z, w, G, eps, norm_before_gate, out] {
    const Tensor dout = g.of(out);
    Tensor dy = g.of(y), dz = g.of(z), dw = g.if_watched(w);
    GatedNormGradParams p{};
    p.f.y = y.f32();
    p.f.ldy = y.stride(0);
    p.f.z = z.f32();
    p.f.ldz = z.stride(0);
    p.f.w = w.f32();
    p.f.eps = eps;
    p.f.norm_before_gate = norm_before_gate;
    p.f.T = y.dim(0);
    p.f.D = y.dim(1);
    p.f.G = G;
    p.dout = dout.f32();
    p.lddout = dout.stride(0);
    p.dy = dy.f32();
    p.lddy = dy.stride(0);
    p.dz = dz.f32();
    p.lddz = dz.stride(0);
    p.dw = data_or_null(dw);
    rt.kernels->gated_norm_grad(rt.exec(), p);
  });
}

void silu_gate(ForwardContext& ctx, const Tensor& a, const Tensor& gate, const Tensor& out) {
  ctx.tape->record([&rt = ctx.runtime, &g = ctx.tape->gradients(), a, gate, out] {
    const Tensor dout = g.of(out);
    Tensor da = g.of(a), dgate = g.of(gate);
    SiluGateGradParams p{};
    p.f = {a.f32(), a.stride(0), gate.f32(), gate.stride(0), nullptr, 0, a.dim(0), a.dim(1)};
    p.dout = dout.f32();
    p.lddout = dout.stride(0);
    p.da = da.f32();
    p.ldda = da.stride(0);
    p.dgate = dgate.f32();
    p.lddg = dgate.stride(0);
    rt.kernels->silu_gate_grad(rt.exec(), p);
  });
}

void add(ForwardContext& ctx, const Tensor& a, const Tensor& sum) {
  ctx.tape->record([&rt = ctx.runtime, &g = ctx.tape->gradients(), a, sum] {
    if (g.has(sum)) run_add(rt, g.of(sum), g.of(a));
  });
}

void copy(ForwardContext& ctx, const Tensor& from, const Tensor& to) {
  ctx.tape->record([&rt = ctx.runtime, &g = ctx.tape->gradients(), from, to] { run_add(rt, g.of(to), g.of(from)); });
}

void embed(ForwardContext& ctx, const Tensor& table, std::span<const int32_t> ids, bool tied, const Tensor& y) {
  if (!ctx.tape->gradients().watched(table)) return;
  ctx.tape->record([&rt = ctx.runtime, &g = ctx.tape->gradients(), table,
                    tokens = std::vector<int32_t>(ids.begin(), ids.end()), tied, y] {
    const Tensor dy = g.of(y);
    Tensor dtable = tied ? g.apart(table) : g.of(table);
    const EmbedGradParams p{tokens.data(), dy.f32(), dy.stride(0), dtable.f32(), y.dim(0), y.dim(1)};
    rt.kernels->embed_grad(rt.exec(), p);
  });
}

}  // namespace krait::backward
