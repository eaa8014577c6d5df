#include "krait/ops/recurrence_params.h"

#include "krait/ops/optional.h"

namespace krait {

CausalConvParams conv_params(const Tensor& x, const Tensor& w, const Tensor& b, bool silu) {
  CausalConvParams p{};
  p.x = x.f32();
  p.ldx = x.stride(0);
  p.w = w.f32();
  p.b = data_or_null(b);
  p.silu = silu;
  p.C = x.dim(1);
  p.W = w.dim(0);
  return p;
}

namespace {

// What the scans of Mamba-1 and Mamba-2 have in common.
template <class Params, class Scan>
Params common_params(const Scan& a) {
  Params p{};
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
  p.dt_bias = data_or_null(a.dt_bias);
  return p;
}

}  // namespace

Mamba1ScanParams scan_params(const Mamba1Scan& a) {
  auto p = common_params<Mamba1ScanParams>(a);
  p.z = data_or_null(a.z);
  p.ldz = ld_or_zero(a.z);
  p.softplus = true;
  p.E = a.x.dim(1);
  p.N = a.B.dim(1);
  return p;
}

SsdScanParams scan_params(const SsdScan& a) {
  auto p = common_params<SsdScanParams>(a);
  p.D_per_channel = a.D.defined() && a.D.numel() != a.H;
  p.dt_min = a.dt_min;
  p.dt_max = a.dt_max;
  p.H = a.H;
  p.P = a.P;
  p.N = a.N;
  p.G = a.G;
  return p;
}

Mamba3ScanParams scan_params(const Mamba3Scan& a) {
  Mamba3ScanParams p{};
  p.z = a.z.f32();
  p.x = a.x.f32();
  p.B = a.B.f32();
  p.C = a.C.f32();
  p.dd_dt = a.dd_dt.f32();
  p.dd_A = a.dd_A.f32();
  p.trap = a.trap.f32();
  p.angle = a.angle.f32();
  p.ld = a.z.stride(0);
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
  p.H = a.H;
  p.P = a.P;
  p.N = a.N;
  p.G = a.G;
  p.R = a.R;
  p.F = a.F;
  return p;
}

}  // namespace krait
