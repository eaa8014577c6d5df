#include "bench_profile.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <string_view>

namespace krait::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kFloat = 4;  // bytes

// The set that is timed, and what was measured. Kernels are plain functions: they can find it only here.
struct Profile {
  KernelSet inner{};
  KernelSet timed{};
  bool on = false;
  std::vector<OpCost> costs;

  OpCost& cost_of(const OpCost& like) {
    for (OpCost& c : costs) {
      if (std::string_view(c.kernel) == like.kernel && c.N == like.N && c.K == like.K && c.dtype == like.dtype)
        return c;
    }
    costs.push_back({like.kernel, like.N, like.K, like.dtype});
    return costs.back();
  }
} profile;

double as_double(int64_t n) { return static_cast<double>(n); }

// Rows of T tokens in and out, `floats` of them a token, and a state of `state` floats a sequence read and written.
double traffic(int64_t T, int64_t floats, int64_t seqs = 0, int64_t state = 0) {
  return kFloat * (as_double(T * floats) + 2 * as_double(seqs * state));
}

OpCost work_of(const MatmulParams& p) {
  const size_t weights = profile.inner.packed_weight_bytes(p.w_dtype, p.N, p.K);
  return {"matmul",
          p.N,
          p.K,
          p.w_dtype,
          1,
          0,
          static_cast<double>(weights) + traffic(p.M, p.N + p.K),
          2 * as_double(p.M * p.N) * as_double(p.K)};
}
OpCost work_of(const NormParams& p) {
  return {"norm", 0, 0, {}, 1, 0, traffic(p.T, p.D * (p.residual != nullptr ? 4 : 2)), 0};
}
OpCost work_of(const GatedNormParams& p) { return {"gated_norm", 0, 0, {}, 1, 0, traffic(p.T, 3 * p.D), 0}; }
OpCost work_of(const SiluGateParams& p) { return {"silu_gate", 0, 0, {}, 1, 0, traffic(p.T, 3 * p.D), 0}; }
OpCost work_of(const AddParams& p) { return {"add", 0, 0, {}, 1, 0, traffic(p.T, 3 * p.D), 0}; }
OpCost work_of(const EmbedParams& p) { return {"embed", 0, 0, {}, 1, 0, traffic(p.T, 2 * p.D), 0}; }
OpCost work_of(const CausalConvParams& p) {
  const int64_t T = p.spans.n_tokens();
  return {"causal_conv", 0, 0, {}, 1, 0, traffic(T, 2 * p.C, p.spans.n_seqs, (p.W - 1) * p.C), 0};
}
// Multiply-adds on an element of the state: the decay 2^x is 9 of mamba1_scan's 12.
OpCost work_of(const Mamba1ScanParams& p) {
  const int64_t T = p.spans.n_tokens(), state = p.N * p.E;
  return {"mamba1_scan",
          0,
          0,
          {},
          1,
          0,
          traffic(T, 4 * p.E + 2 * p.N, p.spans.n_seqs, state),
          2 * 12 * as_double(T * state)};
}
OpCost work_of(const SsdScanParams& p) {
  const int64_t T = p.spans.n_tokens(), state = p.H * p.N * p.P;
  return {"ssd_scan",
          0,
          0,
          {},
          1,
          0,
          traffic(T, 2 * p.H * p.P + 2 * p.G * p.N, p.spans.n_seqs, state),
          2 * 3 * as_double(T * state)};
}
OpCost work_of(const Mamba3ScanParams& p) {
  const int64_t T = p.spans.n_tokens(), state = p.H * p.N * p.P;
  return {"mamba3_scan",
          0,
          0,
          {},
          1,
          0,
          traffic(T, 3 * p.H * p.P + 2 * p.R * p.G * p.N, p.spans.n_seqs, state),
          2 * as_double(1 + 3 * p.R) * as_double(T * state)};
}

template <class Params, void (*KernelSet::*kernel)(const Exec&, const Params&)>
void timed(const Exec& exec, const Params& p) {
  const auto start = Clock::now();
  (profile.inner.*kernel)(exec, p);
  if (!profile.on) return;
  const std::chrono::duration<double> seconds = Clock::now() - start;
  const OpCost work = work_of(p);
  OpCost& c = profile.cost_of(work);
  ++c.calls;
  c.seconds += seconds.count();
  c.bytes += work.bytes;
  c.flops += work.flops;
}

}  // namespace

const KernelSet& profiled(const KernelSet& inner) {
  profile.inner = inner;
  KernelSet& t = profile.timed = inner;
  t.matmul = timed<MatmulParams, &KernelSet::matmul>;
  t.norm = timed<NormParams, &KernelSet::norm>;
  t.gated_norm = timed<GatedNormParams, &KernelSet::gated_norm>;
  t.silu_gate = timed<SiluGateParams, &KernelSet::silu_gate>;
  t.add = timed<AddParams, &KernelSet::add>;
  t.embed = timed<EmbedParams, &KernelSet::embed>;
  t.causal_conv = timed<CausalConvParams, &KernelSet::causal_conv>;
  t.mamba1_scan = timed<Mamba1ScanParams, &KernelSet::mamba1_scan>;
  t.ssd_scan = timed<SsdScanParams, &KernelSet::ssd_scan>;
  t.mamba3_scan = timed<Mamba3ScanParams, &KernelSet::mamba3_scan>;
  return t;
}

void start_profile() {
  profile.costs.clear();
  profile.on = true;
}

std::vector<OpCost> stop_profile() {
  profile.on = false;
  std::ranges::sort(profile.costs, std::ranges::greater{}, &OpCost::seconds);
  return std::move(profile.costs);
}

std::string op_name(const Model& m, const OpCost& c) {
  if (std::string_view(c.kernel) != "matmul") return c.kernel;
  std::set<std::string> names;
  for (const ParamSpec& p : model_params(m.spec())) {
    const bool head = p.name == kHeadName || (p.role == ParamRole::kTable && m.spec().tie_embeddings);
    if ((p.role != ParamRole::kMatmul && !head) || p.shape != Shape{c.N, c.K}) continue;
    const std::string path = p.name.substr(0, p.name.rfind('.'));  // "layers.3.mixer.in_proj" of "….weight"
    names.insert(head ? "head" : path.substr(path.rfind('.') + 1));
  }
  std::string all;
  for (const std::string& n : names) all += (all.empty() ? "" : ", ") + n;
  return "matmul " + all + " (" + std::string(name_of(c.dtype)) + ")";
}

double arithmetic_peak(const Roofline& r, DType weights, Compute compute) {
  if (is_block_type(weights)) return r.int8_gops;
  if (weights != DType::kBF16 || compute == Compute::kF32) return r.f32_gflops;
  return std::max(r.f32_gflops, compute == Compute::kBF16x2 ? r.bf16_gflops / 2 : r.bf16_gflops);
}

double least_seconds(const OpCost& c, const Roofline& r, Compute compute) {
  const double arithmetic = c.flops / (1e9 * arithmetic_peak(r, c.dtype, compute));
  return std::max(arithmetic, c.bytes / (1e9 * r.read_gb_per_s));
}

}  // namespace krait::cli
