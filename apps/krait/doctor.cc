// krait doctor: what this program sees of the machine, and whether it works here.
#include <sys/resource.h>
#include <sys/sysinfo.h>

#include <cmath>
#include <cstdio>
#include <exception>

#include "krait/backends/cpu/cpu_backend.h"
#include "krait/core/rng.h"
#include "session.h"

namespace krait::cli {
namespace {

// Every kernel set multiplies the same small matrices; returns the largest deviation from f64.
double matmul_error(const KernelSet& k, ThreadPool& pool) {
  constexpr int64_t M = 5, N = 70, K = 130;
  Rng rng(7);
  Tensor x = Tensor::empty({M, K}), w = Tensor::empty({N, K}), y = Tensor::empty({M, N});
  for (Tensor* t : {&x, &w}) {
    for (int64_t i = 0; i < t->numel(); ++i) t->f32()[i] = static_cast<float>(rng.normal());
  }
  const Runtime rt{&k, &pool, Compute::kF32};
  const Weight packed(rt, w);
  const SeqSpans none;
  ForwardContext ctx{rt, none};
  y = linear(ctx, x, packed);
  double worst = 0;
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t n = 0; n < N; ++n) {
      double sum = 0;
      for (int64_t i = 0; i < K; ++i)
        sum += static_cast<double>(x.f32()[m * K + i]) * static_cast<double>(w.f32()[n * K + i]);
      worst = std::max(worst, std::abs(sum - static_cast<double>(y.f32()[m * N + n])));
    }
  }
  return worst;
}

int doctor() {
  bool ok = true;
  struct sysinfo info{};
  sysinfo(&info);
  const double gib = static_cast<double>(info.mem_unit) / (1 << 30);
  std::printf("version   krait %s\n", KRAIT_VERSION);
  std::printf("cpu       %s\n", cpu_description().c_str());
  std::printf("threads   %d usable\n", ThreadPool::default_threads());
  std::printf("memory    %.1f GiB, %.1f GiB free\n", static_cast<double>(info.totalram) * gib,
              static_cast<double>(info.freeram) * gib);
  const auto pool = make_pool(0);
  for (const KernelSet* k : cpu_kernel_sets()) {
    const double error = matmul_error(*k, *pool);
    const bool good = error < 1e-4;
    ok = ok && good;
    std::printf("kernels   %-18s %s (matmul error %.1e)%s\n", k->name, good ? "ok" : "WRONG", error,
                k == &cpu_kernels() ? "  <- default" : "");
  }
  try {
    ModelArgs args;
    const Session s = open_session(args, NeedTokenizer::kYes);
    std::printf("model     %s ok (%lld parameters)\n", s.loaded.checkpoint->path().string().c_str(),
                static_cast<long long>(s.model().param_count()));
  } catch (const std::exception& e) {
    ok = false;
    std::printf("model     %s\n", e.what());
  }
  std::printf("%s\n", ok ? "all well" : "problems found");
  return ok ? 0 : 1;
}

}  // namespace

void add_doctor(Command& root) {
  Command c = root.subcommand("doctor", "Check the machine, the kernels and the shipped model");
  c.run([] { return doctor(); });
}

}  // namespace krait::cli
