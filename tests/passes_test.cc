// What a pass asks of the kernels, recorded: calls, the tokens of each, where it reads and which states it changes.
// Speed itself is measured by bench/, never asserted.
#include <gmock/gmock.h>

#include <ctime>
#include <set>

#include "tests/tiny_models.h"

namespace krait::test {
namespace {

struct Call {
  std::string kernel;
  int64_t tokens = 0;
  const float *in = nullptr, *out = nullptr;
  int64_t ld_in = 0, ld_out = 0;
  std::vector<std::pair<const void*, int64_t>> states = {};  // and their slot strides
  std::vector<int32_t> slots = {};
  bool bias = false, silu = false;
};

Call describe(const MatmulParams& p) { return {"matmul", p.M, p.x, p.y, p.ldx, p.ldy}; }
Call describe(const NormParams& p) { return {"norm", p.T, p.x, p.y, p.ldx, p.ldy}; }
Call describe(const GatedNormParams& p) { return {"gated_norm", p.T, p.y, p.out, p.ldy, p.ldo}; }
Call describe(const SiluGateParams& p) { return {"silu_gate", p.T, p.a, p.out, p.lda, p.ldo}; }
Call describe(const AddParams& p) { return {"add", p.T, p.x, p.y, p.ldx, p.ldy}; }
Call describe(const EmbedParams& p) { return {"embed", p.T, nullptr, p.y, 0, p.D}; }
std::vector<int32_t> slots_of(const SpanView& s) { return {s.slot, s.slot + s.n_seqs}; }
Call describe(const CausalConvParams& p) {
  return {"conv",
          p.spans.n_tokens(),
          p.x,
          p.y,
          p.ldx,
          p.ldy,
          {{p.state, p.state_stride}},
          slots_of(p.spans),
          p.b != nullptr,
          p.silu};
}
Call describe(const Mamba1ScanParams& p) {
  return {"scan", p.spans.n_tokens(), p.x, p.y, p.ldx, p.ldy, {{p.state, p.state_stride}}, slots_of(p.spans)};
}
Call describe(const SsdScanParams& p) {
  return {"scan", p.spans.n_tokens(), p.x, p.y, p.ldx, p.ldy, {{p.state, p.state_stride}}, slots_of(p.spans)};
}
Call describe(const Mamba3ScanParams& p) {
  return {"scan",
          p.spans.n_tokens(),
          p.x,
          p.out,
          p.ld,
          p.ldo,
          {{p.phase, p.phase_stride}, {p.S, p.S_stride}, {p.k, p.k_stride}, {p.x_prev, p.x_prev_stride}},
          slots_of(p.spans)};
}

// Kernels are plain functions: what they record can be found only here.
std::vector<Call> calls;

template <class Params, void (*KernelSet::*kKernel)(const Exec&, const Params&)>
void recorded(const Exec& exec, const Params& p) {
  calls.push_back(describe(p));
  (cpu_kernels().*kKernel)(exec, p);
}

const KernelSet& recording_kernels() {
  static const KernelSet set = [] {
    KernelSet k = cpu_kernels();
    k.matmul = recorded<MatmulParams, &KernelSet::matmul>;
    k.norm = recorded<NormParams, &KernelSet::norm>;
    k.gated_norm = recorded<GatedNormParams, &KernelSet::gated_norm>;
    k.silu_gate = recorded<SiluGateParams, &KernelSet::silu_gate>;
    k.add = recorded<AddParams, &KernelSet::add>;
    k.embed = recorded<EmbedParams, &KernelSet::embed>;
    k.causal_conv = recorded<CausalConvParams, &KernelSet::causal_conv>;
    k.mamba1_scan = recorded<Mamba1ScanParams, &KernelSet::mamba1_scan>;
    k.ssd_scan = recorded<SsdScanParams, &KernelSet::ssd_scan>;
    k.mamba3_scan = recorded<Mamba3ScanParams, &KernelSet::mamba3_scan>;
    return k;
  }();
  return set;
}

class Passes : public testing::TestWithParam<std::string> {
 protected:
  // The calls of a pass that reads `length` tokens of each of `n` sequences, the first in slot 1.
  std::vector<Call> pass(int64_t length, int32_t n, SlotStore& states) const {
    SeqSpans spans;
    std::vector<int64_t> rows;
    for (int32_t s = 0; s < n; ++s) {
      spans.add(length, s + 1);
      rows.push_back(spans.n_tokens() - 1);
    }
    calls.clear();
    model_.forward(random_ids(length * n, 29, 3), spans, states, rows);
    return calls;
  }
  std::vector<Call> pass(int64_t length, int32_t n) const {
    SlotStore states(model_.state_specs(), n + 2);
    return pass(length, n, states);
  }

  ModelSpec spec_ = tiny_spec(GetParam());
  Model model_{spec_, random_params(spec_, 1, DType::kF32, pool()), runtime(recording_kernels())};
};

std::vector<std::string> kernels_of(const std::vector<Call>& list) {
  std::vector<std::string> names;
  for (const Call& c : list) names.push_back(c.kernel);
  return names;
}

// A prompt is one call of every kernel, as a token is: no kernel is called token by token.
TEST_P(Passes, TrapH1_APromptIsOneCallOfEveryKernel) {
  const std::vector<Call> step = pass(1, 1), prompt = pass(300, 1);
  EXPECT_EQ(kernels_of(prompt), kernels_of(step));
  for (size_t i = 0; i + 2 < prompt.size(); ++i) EXPECT_EQ(prompt[i].tokens, 300) << i << " " << prompt[i].kernel;
  EXPECT_EQ(prompt.back().kernel, "matmul");
  EXPECT_EQ(prompt.back().tokens, 1) << "the head wants the last token only";
}

// The states of all sequences are handed to one kernel a layer, which changes them where they stand.
TEST_P(Passes, TrapH2_AStateIsReadAndWrittenOnceWhereItStands) {
  SlotStore states(model_.state_specs(), 18);
  std::set<std::pair<const void*, int64_t>> all;
  for (size_t b = 0; b < states.specs().size(); ++b) {
    for (Tensor& t : states.block(b)) {
      std::fill_n(t.bytes(), t.nbytes(), std::byte{1});
      all.insert({t.bytes(), t.numel() / 18});
    }
  }
  std::set<std::pair<const void*, int64_t>> seen;
  for (const Call& c : pass(1, 16, states)) {
    EXPECT_EQ(c.slots.size(), c.states.empty() ? 0U : 16U) << c.kernel;
    for (const auto& s : c.states) EXPECT_TRUE(seen.insert(s).second) << c.kernel << ": a state a second time";
  }
  EXPECT_EQ(seen, all);
  for (size_t b = 0; b < states.specs().size(); ++b) {
    for (size_t t = 0; t < states.specs()[b].size(); ++t) {
      for (const int64_t slot : {0, 17}) {  // of nobody
        const Tensor s = states.at(b, t, slot);
        EXPECT_EQ(std::count(s.bytes(), s.bytes() + s.nbytes(), std::byte{1}), s.nbytes()) << b << " " << t;
      }
    }
  }
}

// Convolution, bias and silu are one kernel, which reads a slice of in_proj's rows and hands its own rows on: nothing
// is transposed, joined or copied on the way.
TEST_P(Passes, TrapH5_TheConvolutionReadsAndWritesNoCopies) {
  const std::vector<Call> list = pass(5, 2);
  int64_t found = 0;
  for (size_t i = 1; i + 1 < list.size(); ++i) {
    const Call &before = list[i - 1], &conv = list[i], &after = list[i + 1];
    if (conv.kernel != "conv") continue;
    ++found;
    EXPECT_TRUE(conv.bias && conv.silu);
    ASSERT_EQ(before.kernel, "matmul");
    EXPECT_EQ(conv.ld_in, before.ld_out);
    EXPECT_GE(conv.in, before.out);
    EXPECT_LT(conv.in, before.out + before.ld_out);
    EXPECT_EQ(after.in, conv.out) << after.kernel;
    EXPECT_EQ(after.ld_in, conv.ld_out) << after.kernel;
  }
  EXPECT_EQ(found, spec_.architecture == "mamba3" ? 0 : spec_.n_layer);  // Mamba-3 has none
}

INSTANTIATE_TEST_SUITE_P(Tiny, Passes, testing::ValuesIn(tiny_names()), [](const auto& i) { return i.param; });

double seconds_of(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Share of the work that the other thread of two took. On a busy machine it may come late: some attempts.
template <class F>
double share_of_the_other(F&& work) {
  double best = 0;
  for (int i = 0; i < 20 && best < 0.2; ++i) {
    const double all = seconds_of(CLOCK_PROCESS_CPUTIME_ID), own = seconds_of(CLOCK_THREAD_CPUTIME_ID);
    work();
    const double mine = seconds_of(CLOCK_THREAD_CPUTIME_ID) - own;
    best = std::max(best, 1 - mine / (seconds_of(CLOCK_PROCESS_CPUTIME_ID) - all));
  }
  return best;
}

// One sequence with one head (Mamba-1: no heads at all) keeps two threads busy.
TEST(ScanThreads, TrapH1_ThreadsShareOneHead) {
  constexpr int64_t T = 20000, P = 128, N = 64;
  ThreadPool two(2);
  const std::vector<float> x(T * P, 0.5F), dt(T * P, -1.0F), B(T * N, 0.1F), A(P * N, -0.5F);
  std::vector<float> y(T * P), state(P * N);
  const SeqSpans spans = SeqSpans::one(T, 0);
  const SpanView view{spans.offset.data(), spans.slot.data(), 1};
  SsdScanParams s{};
  s.spans = view, s.x = x.data(), s.ldx = P, s.dt = dt.data(), s.lddt = 1, s.B = s.C = B.data(), s.ldb = s.ldc = N;
  s.A = A.data(), s.dt_max = std::numeric_limits<float>::infinity(), s.y = y.data(), s.ldy = P;
  s.state = state.data(), s.state_stride = P * N, s.H = 1, s.P = P, s.N = N, s.G = 1;
  EXPECT_GE(share_of_the_other([&] { cpu_kernels().ssd_scan({&two}, s); }), 0.2);
  Mamba1ScanParams m{};
  m.spans = view, m.x = x.data(), m.ldx = P, m.dt = dt.data(), m.lddt = P, m.B = m.C = B.data(), m.ldb = m.ldc = N;
  m.A = A.data(), m.softplus = true, m.y = y.data(), m.ldy = P;
  m.state = state.data(), m.state_stride = P * N, m.E = P, m.N = N;
  EXPECT_GE(share_of_the_other([&] { cpu_kernels().mamba1_scan({&two}, m); }), 0.2);
}

}  // namespace
}  // namespace krait::test
