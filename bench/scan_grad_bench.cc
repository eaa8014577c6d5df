// The scans forward and their gradients, one sequence at the sizes of 12M and 130M (Mamba-3: 187M) models: time of a
// token and layer, and the share of the arithmetic peak that the counted instructions reach.
//   scan_grad_bench [threads [rounds]]
#include <fmt/format.h>

#include <limits>
#include <memory>

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

// Instructions of the multiply-add units for an element of the state and a token. Mamba-1: 2^x takes 9, forward 13, and
// the gradients walk forward twice and back with 8. Mamba-2: 3 forward; the gradients in chunks of 32 tokens 5 products
// with the state, and within the chunk 5 products over pairs of tokens, of which one serves two heads; in whole vectors
// a token has (32 + lanes) / 2 partners.
double instructions(const Size& s, double lanes, bool gradients) {
  if (!s.ssd) return gradients ? 12 + 13 + 8 : 13;
  const auto N = static_cast<double>(s.N), P = static_cast<double>(kP);
  return gradients ? 5 + (32 + lanes) / 2 * (2 * P + 2.5 * N) / (N * P) : 3;
}

// Case i, of a forward and a gradient case each; `count`: multiply-adds of a token.
void print_row(const char* model, const char* set, const std::vector<Case>& cases, size_t i, double count,
               const Roofline& roof) {
  const double seconds = cases[i].seconds / kTokens;
  fmt::print("| {:<11} | {:<10} | {:<9} | {:10.3f} | {:10.2f} | {:9.0f} % |\n", model, set, cases[i].name,
             1e6 * seconds, cases[i].seconds / cases[i / 2 * 2].seconds,
             100 * 2 * count / seconds * 1e-9 / roof.f32_gflops);
}

// One call of the Mamba-3 scan and one of its gradients.
struct Mamba3Data {
  Mamba3Data(int64_t H, int64_t N, int64_t R)
      : row(2 * H * kP + 2 * R * N + 3 * H + N / 4),
        rows(random({kTokens, row})),
        drows(Tensor::zeros({kTokens, row})),
        dout(random({kTokens, H * kP}, DType::kF32, 2)),
        out(Tensor::zeros({kTokens, H * kP})),
        params(random({3, H * R * (N > kP ? N : kP)}, DType::kF32, 3)),
        dparams(Tensor::zeros({9, params.dim(1)})),
        keys(Tensor::zeros({4, params.dim(1)})),
        state(Tensor::zeros({3, H * N * kP})),
        phase(Tensor::zeros({2, H * N / 4}, DType::kI32)),
        dphase(Tensor::zeros({H * N / 4})) {
    Mamba3ScanParams& f = p.f;
    f.spans = {spans.offset.data(), spans.slot.data(), 1};
    const int64_t widths[] = {H * kP, H * kP, R * N, R * N, H, H, H, N / 4};
    const float** slices[] = {&f.z, &f.x, &f.B, &f.C, &f.dd_dt, &f.dd_A, &f.trap, &f.angle};
    float** grads[] = {&p.dz, &p.dx, &p.dB, &p.dC, &p.ddd_dt, &p.ddd_A, &p.dtrap, &p.dangle};
    for (int64_t i = 0, at = 0; i < 8; at += widths[i++]) {
      *slices[i] = rows.f32() + at;
      *grads[i] = drows.f32() + at;
    }
    f.ld = p.ldd = row;
    const auto weights = [&](Tensor& t, int64_t i) { return t.f32() + i * t.dim(1); };
    f.dt_bias = f.D = f.B_norm = f.C_norm = weights(params, 0);
    f.B_bias = f.C_bias = weights(params, 1);
    float** dvectors[] = {&p.ddt_bias, &p.dB_bias, &p.dC_bias, &p.dB_norm, &p.dC_norm,
                          &p.dD,       &p.dmimo_x, &p.dmimo_z, &p.dmimo_o};
    for (int64_t i = 0; i < (R > 1 ? 9 : 6); ++i) *dvectors[i] = weights(dparams, i);
    if (R > 1) f.mimo_x = f.mimo_z = f.mimo_o = weights(params, 2);
    f.eps = 1e-5f, f.A_floor = 1e-4f;
    f.pairing = R > 1 ? RotaryPairing::kHalves : RotaryPairing::kInterleaved;
    f.out = out.f32(), f.ldo = p.lddout = H * kP;
    f.phase = phase.data<int32_t>();
    f.S = weights(state, 0), f.k = weights(keys, 0), f.x_prev = weights(keys, 1);
    f.H = H, f.P = kP, f.N = N, f.G = 1, f.R = R, f.F = N / 4;
    p.phase_before = f.phase + H * N / 4;
    p.S_before = p.k_before = p.x_prev_before = weights(state, 1);
    p.dout = dout.f32();
    p.dphase = dphase.f32();
    p.dS = weights(state, 2), p.dk = weights(keys, 2), p.dx_prev = weights(keys, 3);
  }
  // Of the multiply-add units, per state element and token: forward α, two updates and a reading a rank; the gradients
  // seven products with the state a rank, and six of a row with the 16 rows of its chunk.
  double instructions(bool gradients) const {
    const auto R = static_cast<double>(p.f.R), N = static_cast<double>(p.f.N), P = static_cast<double>(p.f.P);
    return gradients ? R * (7 + 16 * 3 * (N + P) / (N * P)) : 1 + 3 * R;
  }
  int64_t row;
  Tensor rows, drows, dout, out, params, dparams, keys, state, phase, dphase;
  SeqSpans spans = SeqSpans::one(kTokens, 0);
  Mamba3ScanGradParams p{};
};

void mamba3(const Options& o, ThreadPool& pool) {
  const Exec exec{&pool};
  const char* names[] = {"mamba3 12M", "mamba3 187M", "mamba3 MIMO"};
  Mamba3Data data[] = {{10, 64, 1}, {24, 128, 1}, {24, 128, 4}};
  std::vector<Case> cases;
  std::vector<std::pair<const KernelSet*, int>> of;
  const Roofline before = measure_roofline(pool);
  for (int i = 0; i < 3; ++i) {
    for (const KernelSet* set : {cpu_kernels("cpu-avx512"), cpu_kernels("cpu-avx2")}) {
      if (set == nullptr) continue;
      const Mamba3ScanGradParams& p = data[i].p;
      cases.push_back({"forward", [=, &p] { set->mamba3_scan(exec, p.f); }});
      cases.push_back({"gradients", [=, &p] { set->mamba3_scan_grad(exec, p); }});
      of.resize(cases.size(), {set, i});
    }
  }
  interleave(cases, o.rounds, o.threads == 1);
  const Roofline roof = better(before, measure_roofline(pool));
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto [set, which] = of[i];
    const Mamba3ScanParams& f = data[which].p.f;
    const double elements = static_cast<double>(f.H * f.N * f.P);
    print_row(names[which], set->name, cases, i, data[which].instructions(i % 2 == 1) * elements, roof);
  }
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
    const double lanes = set == cpu_kernels("cpu-avx512") ? 16 : 8;
    const double count = instructions(*size, lanes, i % 2 == 1) * static_cast<double>(size->N * size->E);
    print_row(size->model, set->name, cases, i, count, roof);
  }
  mamba3(o, pool);
}

}  // namespace
}  // namespace krait::bench

int main(int argc, char** argv) {
  krait::bench::main(krait::bench::options(argc, argv));
  return 0;
}
