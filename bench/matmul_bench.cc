// Matmul against the measured limits: the time that reading the weight once or the arithmetic takes at least, whichever
// is longer, over the measured time. Rows "pack": bringing the weight into the kernels' layout against copying it.
//   matmul_bench [threads [rounds [type]]]
#include <fmt/format.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string_view>

#include "bench/bench.h"
#include "krait/kernels/blocks.h"

namespace krait::bench {
namespace {

struct Mode {
  const char* name;
  DType dtype;
  Compute compute;
  double Roofline::* peak;
  int parts;  // products the instruction set does for one of the matmul
};

constexpr Mode kModes[] = {{"f32", DType::kF32, Compute::kF32, &Roofline::f32_gflops, 1},
                           {"f16", DType::kF16, Compute::kF32, &Roofline::f32_gflops, 1},
                           {"bf16 in f32", DType::kBF16, Compute::kF32, &Roofline::f32_gflops, 1},
                           {"bf16x2", DType::kBF16, Compute::kBF16x2, &Roofline::bf16_gflops, 2},
                           {"bf16", DType::kBF16, Compute::kBF16, &Roofline::bf16_gflops, 1},
#define KRAIT_BLOCK_MODE(name) {name_of(DType::k##name).data(), DType::k##name, Compute::kF32, &Roofline::int8_gops, 1},
                           KRAIT_BLOCK_TYPES(KRAIT_BLOCK_MODE)
#undef KRAIT_BLOCK_MODE
};

// Blocks of random codes; their scales are bytes 0x11 in every field, small and finite.
Tensor random_blocks(const Shape& shape, DType dtype) {
  Tensor t = Tensor::empty(shape, dtype);
  std::memset(t.bytes(), 0x11, static_cast<size_t>(t.nbytes()));
  return t;
}

struct Weight {
  int64_t N, K;
  const Mode* mode;
  Tensor raw, packed;
};

std::shared_ptr<Weight> make_weight(const KernelSet& set, ThreadPool& pool, int64_t N, int64_t K, const Mode& mode) {
  const Tensor raw = is_block_type(mode.dtype) ? random_blocks({N, K}, mode.dtype) : random({N, K}, mode.dtype);
  Tensor packed = Tensor::empty({static_cast<int64_t>(set.packed_weight_bytes(mode.dtype, N, K))}, DType::kU8);
  set.pack_weight({&pool}, {raw.bytes(), mode.dtype, N, K, packed.bytes()});
  return std::make_shared<Weight>(Weight{N, K, &mode, raw, packed});
}

struct Row {
  int64_t M;  // 0: packing
  std::shared_ptr<Weight> w;
};

void print(const Row& row, double seconds, const Roofline& roof) {
  const Weight& w = *row.w;
  const auto bytes = static_cast<double>(w.packed.nbytes());
  const double work = 2.0 * static_cast<double>(row.M * w.N * w.K);
  const double read = bytes / roof.read_gb_per_s, compute = work / roof.*(w.mode->peak) * w.mode->parts;
  const bool stream = read > compute;
  const double copy = (bytes + static_cast<double>(w.raw.nbytes())) / roof.copy_gb_per_s;
  const double bound = row.M == 0 ? copy : stream ? read : compute;
  fmt::print("| {:<11} | {:>4} | {:5} | {:4} | {:6.1f} {:<6} | {:10.0f} % |\n", w.mode->name,
             row.M == 0 ? "pack" : std::to_string(row.M), w.N, w.K, (stream ? bytes : work) / seconds * 1e-9,
             stream ? "GB/s" : "GF/s", 100 * bound * 1e-9 / seconds);
}

void main(const Options& o, std::string_view only) {
  ThreadPool pool(o.threads);
  const KernelSet& set = cpu_kernels();
  const Roofline before = measure_roofline(pool);
  constexpr int64_t kRows[] = {16, 128, 512};
  constexpr int64_t kShapes[][2] = {{1024, 1024}, {3432, 1024}, {2048, 2048}, {1024, 4096}};
  constexpr int64_t kBig[] = {32768, 4096};  // 256 MB in 16 bits: beyond the caches

  std::vector<Case> cases;
  std::vector<Row> rows;
  const Tensor x = random({512, 4096});
  Tensor y = Tensor::empty({512, kBig[0]});
  const auto add = [&](int64_t M, std::shared_ptr<Weight> w) {
    rows.push_back({M, w});
    cases.push_back({w->mode->name, [&set, &pool, &x, &y, M, w] {
                       if (M == 0) {
                         set.pack_weight({&pool}, {w->raw.bytes(), w->mode->dtype, w->N, w->K, w->packed.bytes()});
                       } else {
                         set.matmul({&pool}, {x.f32(), w->K, w->packed.bytes(), w->mode->dtype, w->mode->compute,
                                              nullptr, y.f32(), w->N, M, w->N, w->K});
                       }
                     }});
  };
  for (const Mode& mode : kModes) {
    if (!only.empty() && only != mode.name) continue;
    for (const auto& shape : kShapes) {
      const auto w = make_weight(set, pool, shape[0], shape[1], mode);
      for (int64_t M : kRows) add(M, w);
    }
    const auto big = make_weight(set, pool, kBig[0], kBig[1], mode);
    for (int64_t M : {1, 4, 16, 0}) add(M, big);
  }
  interleave(cases, o.rounds, o.threads == 1);
  const Roofline roof = better(before, measure_roofline(pool));

  fmt::print("{}, {}, {} threads: f32 {:.0f}, bf16 {:.0f} GFLOP/s, int8 {:.0f} GOP/s, read {:.1f}, copy {:.1f} GB/s\n",
             cpu_description(), set.name, o.threads, roof.f32_gflops, roof.bf16_gflops, roof.int8_gops,
             roof.read_gb_per_s, roof.copy_gb_per_s);
  fmt::print("| weight      |    M |     N |    K |      rate     | of the limit |\n");
  fmt::print("|:------------|-----:|------:|-----:|--------------:|-------------:|\n");
  for (size_t i = 0; i < rows.size(); ++i) print(rows[i], cases[i].seconds, roof);
}

}  // namespace
}  // namespace krait::bench

int main(int argc, char** argv) {
  krait::bench::main(krait::bench::options(argc, argv), argc > 3 ? argv[3] : "");
  return 0;
}
