// The scans of Mamba-1 and Mamba-2 forward and their gradients, one sequence at the sizes of 12M and 130M models: time
// of a token and layer, and what share of the time goes into the arithmetic that the gradients cannot do without.
//   scan_grad_bench [threads [rounds]]
#include <fmt/format.h>

#include <limits>

#include "bench/bench.h"
#include "krait/core/seq_spans.h"

namespace krait::bench {
namespace {

constexpr int64_t kTokens = 1024, kP = 64;

struct Size {
  const char* model;
  int64_t E, N;
  bool ssd;
};

// Inputs, outputs and gradients of one scan.
struct Data {
  explicit Data(const Size& s)
      : rows(random({kTokens, 2 * s.E + 2 * s.N})),
        z(random({kTokens, s.E}, DType::kF32, 2)),
        A(Tensor::empty({s.N, s.E})),
        w(random({s.E})),
        dy(random({kTokens, s.E}, DType::kF32, 3)),
        y(Tensor::zeros({kTokens, s.E})),
        drows(Tensor::zeros({kTokens, 2 * s.E + 2 * s.N})),
        dz(Tensor::zeros({kTokens, s.E})),
        dparams(Tensor::zeros({(s.N + 2) * s.E})),
        state(Tensor::zeros({s.N * s.E})),
        dstate(Tensor::zeros({s.N * s.E})),
        before(Tensor::zeros({s.N * s.E})) {
    for (int64_t i = 0; i < A.numel(); ++i) A.f32()[i] = -static_cast<float>(1 + i / s.E);
  }
  Tensor rows, z, A, w, dy, y, drows, dz, dparams, state, dstate, before;
  SeqSpans spans = SeqSpans::one(kTokens, 0);
};

template <class P>
void set_rows(P& p, Data& d, const Size& s) {
  p.f.spans = {d.spans.offset.data(), d.spans.slot.data(), 1};
  const float* rows = d.rows.f32();
  float* drows = d.drows.f32();
  p.f.x = rows, p.f.dt = rows + s.E, p.f.B = rows + 2 * s.E, p.f.C = p.f.B + s.N;
  p.f.ldx = p.f.lddt = p.f.ldb = p.f.ldc = d.rows.dim(1);
  p.f.A = d.A.f32(), p.f.D = p.f.dt_bias = d.w.f32();
  p.f.y = d.y.f32(), p.f.ldy = s.E;
  p.f.state = d.state.f32(), p.f.state_stride = s.N * s.E;
  p.before = d.before.f32();
  p.dy = d.dy.f32(), p.lddy = s.E;
  p.dx = drows, p.ddt = drows + s.E, p.dB = drows + 2 * s.E, p.dC = p.dB + s.N;
  p.lddx = p.ldddt = p.lddB = p.lddC = d.drows.dim(1);
  p.dA = d.dparams.f32(), p.dD = p.dA + s.N * s.E, p.ddt_bias = p.dD + s.E;
  p.dstate = d.dstate.f32(), p.dstate_stride = s.N * s.E;
}

void add_cases(std::vector<Case>& cases, const KernelSet& set, const Exec& exec, Data& d, const Size& s) {
  if (s.ssd) {
    SsdScanGradParams p{};
    set_rows(p, d, s);
    p.f.dt_max = std::numeric_limits<float>::infinity();
    p.f.H = s.E / kP, p.f.P = kP, p.f.N = s.N, p.f.G = 1;
    cases.push_back({"forward", [=, &set] { set.ssd_scan(exec, p.f); }});
    cases.push_back({"gradients", [=, &set] { set.ssd_scan_grad(exec, p); }});
  } else {
    Mamba1ScanGradParams p{};
    set_rows(p, d, s);
    p.f.z = d.z.f32(), p.f.ldz = s.E;
    p.dz = d.dz.f32(), p.lddz = s.E;
    p.f.softplus = true;
    p.f.E = s.E, p.f.N = s.N;
    cases.push_back({"forward", [=, &set] { set.mamba1_scan(exec, p.f); }});
    cases.push_back({"gradients", [=, &set] { set.mamba1_scan_grad(exec, p); }});
  }
}

// Instructions of the multiply-add units for an element of the state and a token. Mamba-1: 2^x takes 9, forward 12, and
// the gradients walk forward twice and back with 8. Mamba-2: 3 forward; the gradients in chunks of 32 tokens 5 products
// with the state, and 24 of 32 token pairs of each of 5 products within the chunk, of which one serves two heads.
double instructions(const Size& s, bool gradients) {
  if (!s.ssd) return gradients ? 2 * 12 + 1 + 8 : 13;
  const auto N = static_cast<double>(s.N), P = static_cast<double>(kP);
  return gradients ? 5 + 24 * (2 * P + 2.5 * N) / (N * P) : 3;
}

void main(const Options& o) {
  ThreadPool pool(o.threads);
  const Exec exec{&pool};
  const Size sizes[] = {{"mamba1 12M", 640, 16, false},
                        {"mamba1 130M", 1536, 16, false},
                        {"mamba2 12M", 640, 64, true},
                        {"mamba2 130M", 1536, 128, true}};
  std::vector<std::unique_ptr<Data>> data;
  std::vector<Case> cases;
  std::vector<std::pair<const KernelSet*, const Size*>> of;
  const Roofline before = measure_roofline(pool);
  for (const Size& size : sizes) {
    data.push_back(std::make_unique<Data>(size));
    for (const KernelSet* set : {cpu_kernels("cpu-avx512"), cpu_kernels("cpu-avx2")}) {
      if (set == nullptr) continue;
      add_cases(cases, *set, exec, *data.back(), size);
      of.resize(cases.size(), {set, &size});
    }
  }
  interleave(cases, o.rounds, o.threads == 1);
  const Roofline roof = better(before, measure_roofline(pool));
  fmt::print("{}, {} threads: f32 {:.0f} GFLOP/s; {} tokens\n", cpu_description(), o.threads, roof.f32_gflops, kTokens);
  fmt::print("| model       | kernels    | scan      | µs a token | of forward | of the peak |\n");
  fmt::print("|:------------|:-----------|:----------|-----------:|-----------:|------------:|\n");
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto [set, size] = of[i];
    const double seconds = cases[i].seconds / kTokens;
    const double count = instructions(*size, i % 2 == 1) * static_cast<double>(size->N * size->E);
    fmt::print("| {:<11} | {:<10} | {:<9} | {:10.3f} | {:10.2f} | {:9.0f} % |\n", size->model, set->name, cases[i].name,
               1e6 * seconds, cases[i].seconds / cases[i / 2 * 2].seconds,
               100 * 2 * count / seconds * 1e-9 / roof.f32_gflops);
  }
}

}  // namespace
}  // namespace krait::bench

int main(int argc, char** argv) {
  krait::bench::main(krait::bench::options(argc, argv));
  return 0;
}
