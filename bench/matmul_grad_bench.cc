// The gradient of a matmul's weight against the measured peak of f32 arithmetic, beside the matmuls of the same shape:
// forward (y = x · Wᵀ) and the gradient of the input (dx = dy · W, whose packing of Wᵀ is not counted).
//   matmul_grad_bench [threads [rounds]]
#include <fmt/format.h>

#include "bench/bench.h"

namespace krait::bench {
namespace {

// A weight [N, K] and T rows.
struct Shape3 {
  int64_t T, N, K;
  double gflop() const { return 2e-9 * static_cast<double>(T * N * K); }
};

Tensor packed(const KernelSet& set, ThreadPool& pool, int64_t N, int64_t K) {
  const Tensor rows = random({N, K});
  Tensor t = Tensor::empty({static_cast<int64_t>(set.packed_weight_bytes(DType::kF32, N, K))}, DType::kU8);
  set.pack_weight({&pool}, {rows.bytes(), DType::kF32, N, K, t.bytes()});
  return t;
}

void main(const Options& o) {
  ThreadPool pool(o.threads);
  const KernelSet& set = cpu_kernels();
  const Roofline before = measure_roofline(pool);
  // A model of 12M parameters (projections in and out, head) and wider ones.
  constexpr Shape3 kShapes[] = {{1024, 1096, 256}, {1024, 256, 512},  {4096, 1096, 256}, {256, 8192, 256},
                                {1024, 8192, 256}, {1024, 1000, 250}, {1024, 3352, 768}, {1024, 768, 1536}};
  std::vector<Case> cases;
  for (const Shape3& s : kShapes) {
    const Tensor x = random({s.T, s.K}), dy = random({s.T, s.N}), w = packed(set, pool, s.N, s.K),
                 wt = packed(set, pool, s.K, s.N);
    Tensor dw = Tensor::zeros({s.N, s.K}), y = Tensor::empty({s.T, s.N}), dx = Tensor::empty({s.T, s.K});
    cases.push_back({"forward", [=, &set, &pool]() mutable {
                       set.matmul({&pool}, {x.f32(), s.K, w.bytes(), DType::kF32, Compute::kF32, nullptr, y.f32(), s.N,
                                            s.T, s.N, s.K});
                     }});
    cases.push_back({"dx", [=, &set, &pool]() mutable {
                       set.matmul({&pool}, {dy.f32(), s.N, wt.bytes(), DType::kF32, Compute::kF32, nullptr, dx.f32(),
                                            s.K, s.T, s.K, s.N});
                     }});
    cases.push_back({"dw", [=, &set, &pool]() mutable {
                       set.matmul_grad({&pool}, {dy.f32(), s.N, x.f32(), s.K, dw.f32(), nullptr, s.T, s.N, s.K});
                     }});
  }
  interleave(cases, o.rounds, o.threads == 1);
  const Roofline roof = better(before, measure_roofline(pool));

  fmt::print("{}, {}, {} threads: f32 {:.0f} GFLOP/s\n", cpu_description(), set.name, o.threads, roof.f32_gflops);
  fmt::print("|    T |     N |    K | forward |      dx |      dw | GFLOP/s; dw of the peak |\n");
  fmt::print("|-----:|------:|-----:|--------:|--------:|--------:|------------------------:|\n");
  for (size_t i = 0; i < std::size(kShapes); ++i) {
    const Shape3& s = kShapes[i];
    const auto rate = [&](size_t c) { return s.gflop() / cases[3 * i + c].seconds; };
    fmt::print("| {:>4} | {:>5} | {:>4} | {:7.1f} | {:7.1f} | {:7.1f} | {:21.0f} % |\n", s.T, s.N, s.K, rate(0),
               rate(1), rate(2), 100 * rate(2) / roof.f32_gflops);
  }
}

}  // namespace
}  // namespace krait::bench

int main(int argc, char** argv) {
  krait::bench::main(krait::bench::options(argc, argv));
  return 0;
}
