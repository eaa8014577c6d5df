// The ops of a layer that are not matmuls, at the shapes of mamba-130m (E 1536, N 16) and mamba2-130m (24 heads of 64,
// N 128): time of a token, for a long prompt, one new token, and one new token of each of 16 sequences.
//   layer_bench [threads [rounds]]
#include <fmt/format.h>

#include <limits>

#include "bench/bench.h"
#include "krait/core/seq_spans.h"

namespace krait::bench {
namespace {

constexpr int64_t D = 768, E = 1536, H = 24, P = 64, kN1 = 16, kN2 = 128, W = 4;
constexpr int64_t kConv = E + 2 * kN2, kSeqs = 16, kPrompt = 512;

// Buffers every case reads and writes; each sequence has its own states.
struct Data {
  Tensor rows = random({kPrompt, 2 * kConv}), z = random({kPrompt, E}, DType::kF32, 2);
  Tensor out = Tensor::zeros({kPrompt, kConv}), residual = random({kPrompt, D});
  Tensor w = random({W, kConv}), A = Tensor::empty({kN1, E});
  Tensor conv_state = Tensor::zeros({kSeqs, W - 1, kConv}), state1 = Tensor::zeros({kSeqs, kN1, E});
  Tensor state2 = Tensor::zeros({kSeqs, H, kN2, P});
  Data() {
    for (int64_t i = 0; i < A.numel(); ++i) A.f32()[i] = -static_cast<float>(1 + i / E);
  }
};

struct Batch {
  const char* name;
  SeqSpans spans;
  int64_t tokens() const { return spans.n_tokens(); }
};

std::vector<Batch> batches() {
  Batch many{"16 x 1 token", {}};
  for (int32_t s = 0; s < kSeqs; ++s) many.spans.add(1, s);
  return {{"512 tokens", SeqSpans::one(kPrompt, 0)}, {"1 token", SeqSpans::one(1, 0)}, many};
}

void add_cases(std::vector<Case>& cases, const KernelSet& set, const Exec& exec, Data& d, const Batch& batch) {
  const SpanView spans{batch.spans.offset.data(), batch.spans.slot.data(), batch.spans.n_seqs()};
  const int64_t T = batch.tokens(), ld = d.rows.dim(1);
  const float* rows = d.rows.f32();
  float* out = d.out.f32();
  cases.push_back({"norm", [=, &set, &d] {
                     set.norm(exec,
                              {NormKind::kRms, rows, ld, d.residual.f32(), d.w.f32(), nullptr, 1e-5f, out, D, T, D});
                   }});
  cases.push_back({"gated_norm", [=, &set, &d] {
                     set.gated_norm(exec, {rows, ld, d.z.f32(), E, d.w.f32(), 1e-5f, false, out, E, T, E, 1});
                   }});
  cases.push_back({"causal_conv", [=, &set, &d] {
                     set.causal_conv(exec, {spans, rows, ld, d.w.f32(), d.w.f32(), true, out, kConv, d.conv_state.f32(),
                                            (W - 1) * kConv, kConv, W});
                   }});
  Mamba1ScanParams m{};
  m.spans = spans;
  m.x = rows, m.dt = rows + E, m.B = rows, m.C = rows + kN1, m.z = d.z.f32();
  m.ldx = m.lddt = m.ldb = m.ldc = ld, m.ldz = E;
  m.A = d.A.f32(), m.D = m.dt_bias = d.w.f32();
  m.softplus = true;
  m.y = out, m.ldy = E;
  m.state = d.state1.f32(), m.state_stride = kN1 * E;
  m.E = E, m.N = kN1;
  cases.push_back({"mamba1_scan", [=, &set] { set.mamba1_scan(exec, m); }});
  SsdScanParams s{};
  s.spans = spans;
  s.x = rows, s.B = rows + E, s.C = rows + E + kN2, s.dt = rows + kConv;
  s.ldx = s.lddt = s.ldb = s.ldc = ld;
  s.A = d.A.f32(), s.D = s.dt_bias = d.w.f32();
  s.dt_max = std::numeric_limits<float>::infinity();
  s.y = out, s.ldy = E;
  s.state = d.state2.f32(), s.state_stride = H * kN2 * P;
  s.H = H, s.P = P, s.N = kN2, s.G = 1;
  cases.push_back({"ssd_scan", [=, &set] { set.ssd_scan(exec, s); }});
}

// Share of the arithmetic peak. An instruction of the multiply-add units counts as a multiply-add: 3 for each element
// of the state in ssd_scan; in mamba1_scan 12, of which 9 are 2^x.
double share(const std::string& name, double seconds_of_token, const Roofline& roof) {
  const double instructions = name == "ssd_scan" ? 3.0 * H * kN2 * P : name == "mamba1_scan" ? 12.0 * kN1 * E : 0.0;
  return 2 * instructions / seconds_of_token * 1e-9 / roof.f32_gflops;
}

void main(const Options& o) {
  ThreadPool pool(o.threads);
  const Exec exec{&pool};
  Data data;
  const std::vector<Batch> all = batches();
  const Roofline before = measure_roofline(pool);
  std::vector<Case> cases;
  std::vector<std::pair<const KernelSet*, const Batch*>> of;
  for (const KernelSet* set : {cpu_kernels("cpu-avx512"), cpu_kernels("cpu-avx2")}) {
    if (set == nullptr) continue;
    for (const Batch& batch : all) {
      add_cases(cases, *set, exec, data, batch);
      of.resize(cases.size(), {set, &batch});
    }
  }
  interleave(cases, o.rounds, o.threads == 1);
  const Roofline roof = better(before, measure_roofline(pool));

  fmt::print("{}, {} threads: f32 {:.0f} GFLOP/s\n", cpu_description(), o.threads, roof.f32_gflops);
  fmt::print("| kernels    | op          | batch        | µs a token | of the peak |\n");
  fmt::print("|:-----------|:------------|:-------------|-----------:|------------:|\n");
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto [set, batch] = of[i];
    const double seconds = cases[i].seconds / static_cast<double>(batch->tokens());
    const double of_peak = share(cases[i].name, seconds, roof);
    fmt::print("| {:<10} | {:<11} | {:<12} | {:10.2f} | {:>11} |\n", set->name, cases[i].name, batch->name,
               1e6 * seconds, of_peak > 0 ? fmt::format("{:.0f} %", 100 * of_peak) : "");
  }
}

}  // namespace
}  // namespace krait::bench

int main(int argc, char** argv) {
  krait::bench::main(krait::bench::options(argc, argv));
  return 0;
}
