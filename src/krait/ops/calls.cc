#include "krait/ops/calls.h"

#include "krait/ops/optional.h"

namespace krait {

void run_matmul(const Runtime& rt, const Tensor& x, const Weight& w, const Tensor& bias, Tensor y) {
  MatmulParams p{};
  p.x = x.f32();
  p.ldx = x.stride(0);
  p.w = w.packed();
  p.w_dtype = w.dtype();
  p.compute = rt.compute;
  p.bias = data_or_null(bias);
  p.y = y.f32();
  p.ldy = y.stride(0);
  p.M = x.dim(0);
  p.N = w.N();
  p.K = w.K();
  rt.kernels->matmul(rt.exec(), p);
}

void run_add(const Runtime& rt, const Tensor& x, Tensor y) {
  rt.kernels->add(rt.exec(), {x.f32(), x.stride(0), y.f32(), y.stride(0), x.dim(0), x.dim(1)});
}

}  // namespace krait
