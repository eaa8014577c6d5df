// Matmul against the measured limits: share of the arithmetic peak for many rows, of read bandwidth for one.
//   matmul_bench [threads [rounds]]
#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "bench/bench.h"

namespace krait::bench {
namespace {

struct Mode {
  const char* name;
  DType dtype;
  Compute compute;
  double Roofline::* peak;
  int parts;  // products the instruction set does for one of the matmul
};

constexpr Mode kModes[] = {
    {"f32", DType::kF32, Compute::kF32, &Roofline::f32_gflops, 1},
    {"f16", DType::kF16, Compute::kF32, &Roofline::f32_gflops, 1},
    {"bf16 in f32", DType::kBF16, Compute::kF32, &Roofline::f32_gflops, 1},
    {"bf16x2", DType::kBF16, Compute::kBF16x2, &Roofline::bf16_gflops, 2},
    {"bf16", DType::kBF16, Compute::kBF16, &Roofline::bf16_gflops, 1},
};

struct Weight {
  int64_t N, K;
  const Mode* mode;
  Tensor packed;
};

Weight make_weight(const KernelSet& set, ThreadPool& pool, int64_t N, int64_t K, const Mode& mode) {
  const Tensor raw = random({N, K}, mode.dtype);
  Tensor packed = Tensor::empty({static_cast<int64_t>(set.packed_weight_bytes(mode.dtype, N, K))}, DType::kU8);
  set.pack_weight({&pool}, {raw.bytes(), mode.dtype, N, K, packed.bytes()});
  return {N, K, &mode, packed};
}

void main(const Options& o) {
  ThreadPool pool(o.threads);
  const KernelSet& set = cpu_kernels();
  const Roofline before = measure_roofline(pool);
  constexpr int64_t kRows[] = {128, 256, 512};
  constexpr int64_t kShapes[][2] = {{1024, 1024}, {3432, 1024}, {2048, 2048}, {1024, 4096}};
  constexpr int64_t kBig[] = {32768, 4096};  // 256 MB in 16 bits: beyond the caches

  std::vector<Case> cases;
  struct Row {
    int64_t M;
    std::shared_ptr<Weight> w;
  };
  std::vector<Row> rows;
  const Tensor x = random({512, 4096});
  Tensor y = Tensor::empty({512, kBig[0]});
  const auto add = [&](int64_t M, std::shared_ptr<Weight> w) {
    rows.push_back({M, w});
    cases.push_back({w->mode->name, [&set, &pool, &x, &y, M, w] {
                       set.matmul({&pool}, {x.f32(), w->K, w->packed.bytes(), w->mode->dtype, w->mode->compute, nullptr,
                                            y.f32(), w->N, M, w->N, w->K});
                     }});
  };
  for (const Mode& mode : kModes) {
    for (const auto& shape : kShapes) {
      const auto w = std::make_shared<Weight>(make_weight(set, pool, shape[0], shape[1], mode));
      for (int64_t M : kRows) add(M, w);
    }
    add(1, std::make_shared<Weight>(make_weight(set, pool, kBig[0], kBig[1], mode)));
  }
  interleave(cases, o.rounds, o.threads == 1);
  const Roofline roof = better(before, measure_roofline(pool));

  fmt::print("{}, {}, {} threads: f32 {:.0f}, bf16 {:.0f} GFLOP/s, read {:.1f} GB/s\n", cpu_description(), set.name,
             o.threads, roof.f32_gflops, roof.bf16_gflops, roof.read_gb_per_s);
  fmt::print("| weight      |   M |     N |    K |      rate     | of the limit |\n");
  fmt::print("|:------------|----:|------:|-----:|--------------:|-------------:|\n");
  for (size_t i = 0; i < rows.size(); ++i) {
    const Weight& w = *rows[i].w;
    const bool stream = rows[i].M == 1;
    const double work =
        stream ? static_cast<double>(w.packed.nbytes()) : 2.0 * static_cast<double>(rows[i].M * w.N * w.K);
    const double rate = work / cases[i].seconds * 1e-9;
    const double limit = stream ? roof.read_gb_per_s : roof.*(w.mode->peak) / w.mode->parts;
    fmt::print("| {:<11} | {:3} | {:5} | {:4} | {:6.1f} {:<6} | {:10.0f} % |\n", w.mode->name, rows[i].M, w.N, w.K,
               rate, stream ? "GB/s" : "GF/s", 100 * rate / limit);
  }
}

}  // namespace
}  // namespace krait::bench

int main(int argc, char** argv) {
  krait::bench::main(krait::bench::options(argc, argv));
  return 0;
}
