// Problems of the scans of Mamba-1 and Mamba-2, for the tests of the kernels and of their gradients.
#pragma once
#include <limits>
#include <vector>

#include "krait/backends/cpu/kernel_testing.h"

namespace krait::testing_util {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Shape1 {
  int64_t E, N;
  bool z = true, D = true, bias = true, softplus = true;
};

// Inputs of T packed tokens, and parameters.
struct Problem1 {
  Problem1(Shape1 s, int64_t T, uint64_t seed)
      : shape(s),
        x(Rows::random(T, s.E, 3, seed)),
        dt(Rows::random(T, s.E, 1, seed + 1, s.softplus ? 2 : 0)),
        BC(Rows::random(T, 2 * s.N, 2, seed + 2)),
        z(Rows::random(T, s.E, 5, seed + 3, 2)),
        A(normals(s.E * s.N, seed + 4)),
        D(normals(s.E, seed + 5)),
        bias(normals(s.E, seed + 6)) {
    for (float& a : A) a = -std::exp(2 * a);
    if (!s.softplus) {  // step sizes as they are must not be negative
      for (float& b : bias) b = std::fabs(b);
      for (int64_t t = 0; t < T; ++t) {
        for (int64_t e = 0; e < s.E; ++e) dt.row(t)[e] = 0.1f * static_cast<float>((t + e) % 7);
      }
    }
  }
  // Tokens from t0 on; y [·, ldy] is the row of token t0.
  Mamba1ScanParams params(const SeqSpans& spans, int64_t t0, float* y, int64_t ldy, std::vector<float>& state) const {
    Mamba1ScanParams p{};
    p.spans = view(spans);
    p.x = x.row(t0), p.ldx = x.ld;
    p.dt = dt.row(t0), p.lddt = dt.ld;
    p.B = BC.row(t0), p.ldb = BC.ld;
    p.C = BC.row(t0) + shape.N, p.ldc = BC.ld;
    if (shape.z) p.z = z.row(t0), p.ldz = z.ld;
    p.A = A.data();
    if (shape.D) p.D = D.data();
    if (shape.bias) p.dt_bias = bias.data();
    p.softplus = shape.softplus;
    p.y = y, p.ldy = ldy;
    p.state = state.data(), p.state_stride = state_stride();
    p.E = shape.E, p.N = shape.N;
    return p;
  }
  int64_t state_stride() const { return shape.E * shape.N + 5; }
  std::vector<float> states(int64_t slots) const { return normals(slots * state_stride(), 9); }
  Shape1 shape;
  Rows x, dt, BC, z;
  std::vector<float> A, D, bias;
};

struct Shape2 {
  int64_t H, P, N, G;
  bool D = true, D_per_channel = false, bias = true;
  float dt_min = 0, dt_max = kInf;
};

// Inputs of T packed tokens, and parameters.
struct Problem2 {
  Problem2(Shape2 s, int64_t T, uint64_t seed)
      : shape(s),
        xBC(Rows::random(T, s.H * s.P + 2 * s.G * s.N, 3, seed)),
        dt(Rows::random(T, s.H, 1, seed + 1, 2)),
        A(normals(s.H, seed + 2)),
        D(normals(s.H * s.P, seed + 3)),
        bias(normals(s.H, seed + 4)) {
    for (float& a : A) a = -std::exp(2 * a);
  }
  // Tokens from t0 on; y [·, ldy] is the row of token t0.
  SsdScanParams params(const SeqSpans& spans, int64_t t0, float* y, int64_t ldy, std::vector<float>& state) const {
    SsdScanParams p{};
    p.spans = view(spans);
    p.x = xBC.row(t0), p.ldx = xBC.ld;
    p.B = p.x + width(), p.ldb = xBC.ld;
    p.C = p.B + shape.G * shape.N, p.ldc = xBC.ld;
    p.dt = dt.row(t0), p.lddt = dt.ld;
    p.A = A.data();
    if (shape.D) p.D = D.data();
    p.D_per_channel = shape.D_per_channel;
    if (shape.bias) p.dt_bias = bias.data();
    p.dt_min = shape.dt_min, p.dt_max = shape.dt_max;
    p.y = y, p.ldy = ldy;
    p.state = state.data(), p.state_stride = state_stride();
    p.H = shape.H, p.P = shape.P, p.N = shape.N, p.G = shape.G;
    return p;
  }
  int64_t width() const { return shape.H * shape.P; }
  int64_t state_stride() const { return width() * shape.N + 5; }
  std::vector<float> states(int64_t slots) const { return normals(slots * state_stride(), 9); }
  Shape2 shape;
  Rows xBC, dt;
  std::vector<float> A, D, bias;
};

}  // namespace krait::testing_util
