// The Mamba-3 scan against outputs of the official GPU kernels, which round to bf16: layers of the published 187M
// models and small shapes, SISO and MIMO. The golden data enter after the projection and the norm of B and C.
#include <cmath>
#include <vector>

#include "krait/core/seq_spans.h"
#include "krait/io/npy.h"
#include "tests/test_models.h"

namespace krait::test {
namespace {

constexpr float kHuge = 0x1p100f;  // as eps of the norm, with weights of its square root: makes the norm the identity

using Floats = std::vector<float>;

// One captured call. Shapes: Q, K [1, T, (R,) G, N], V, Z, out [1, T, H, P], ADT, DT, Trap [1, H, T], biases
// [H, (R,) N], MIMO_* [H, R, P], Angles [1, T, H, F].
class Golden {
 public:
  explicit Golden(const fs::path& file) : arrays_(io::read_npz(file)) {
    T = at("V").dim(1);
    H = at("V").dim(2);
    P = at("V").dim(3);
    N = at("Q").dim(-1);
    G = at("Q").dim(-2);
    mimo = arrays_.contains("kw_MIMO_V");
    R = mimo ? at("Q").dim(2) : 1;
    F = at("Angles").dim(3);
    for (int64_t t = 0; t < T; ++t) append_row(t);
  }

  const Tensor& at(const std::string& name) const { return arrays_.at("kw_" + name); }
  const Tensor& want() const { return arrays_.at("out"); }

  // Output of the whole sequence from the zero state.
  Floats run(const KernelSet& set) const {
    const SeqSpans spans = SeqSpans::one(T, 0);
    const Floats zeros(static_cast<size_t>(H)), norm(static_cast<size_t>(N), std::sqrt(kHuge));
    std::vector<int32_t> phase(static_cast<size_t>(H * F));
    Floats S(static_cast<size_t>(H * N * P)), k(static_cast<size_t>(R * H * N)), x(static_cast<size_t>(H * P));
    Floats out(static_cast<size_t>(T * H * P));
    Mamba3ScanParams p{};
    p.spans = {spans.offset.data(), spans.slot.data(), 1};
    const float* row = rows_.data();
    const auto next = [&](int64_t width) { return std::exchange(row, row + width); };
    p.z = next(H * P);
    p.x = next(H * P);
    p.B = next(R * G * N);
    p.C = next(R * G * N);
    p.dd_dt = next(H);
    p.dd_A = next(H);
    p.trap = next(H);
    p.angle = next(F);
    p.ld = static_cast<int64_t>(rows_.size()) / T;
    p.dt_bias = zeros.data();
    p.B_bias = at("K_bias").f32();
    p.C_bias = at("Q_bias").f32();
    p.B_norm = p.C_norm = norm.data();
    p.D = at("D").f32();
    if (mimo) {
      p.mimo_x = at("MIMO_V").f32();
      p.mimo_z = at("MIMO_Z").f32();
      p.mimo_o = at("MIMO_Out").f32();
    }
    p.eps = kHuge;
    p.pairing = mimo ? RotaryPairing::kHalves : RotaryPairing::kInterleaved;
    p.out = out.data();
    p.ldo = H * P;
    p.phase = phase.data();
    p.S = S.data();
    p.k = k.data();
    p.x_prev = x.data();
    p.H = H;
    p.P = P;
    p.N = N;
    p.G = G;
    p.R = R;
    p.F = F;
    set.mamba3_scan({&pool()}, p);
    return out;
  }

  int64_t T, H, P, N, G, R, F;
  bool mimo;

 private:
  // A row as in_proj would have made it: dt and A undone to what comes before their activations.
  void append_row(int64_t t) {
    const auto copy = [&](const char* name, int64_t width) {
      const float* from = at(name).f32() + t * (at(name).numel() / T);
      rows_.insert(rows_.end(), from, from + width);
    };
    const auto per_head = [&](const char* name, int64_t h) { return static_cast<double>(at(name).f32()[h * T + t]); };
    copy("Z", H * P);
    copy("V", H * P);
    copy("K", R * G * N);
    copy("Q", R * G * N);
    for (int64_t h = 0; h < H; ++h) rows_.push_back(static_cast<float>(std::log(std::expm1(per_head("DT", h)))));
    for (int64_t h = 0; h < H; ++h) {
      const double f = -per_head("ADT", h) / per_head("DT", h);  // f(v) = 1 + v (v >= 0), 1/(1 − v) (v < 0)
      rows_.push_back(static_cast<float>(f >= 1 ? f - 1 : 1 - 1 / f));
    }
    for (int64_t h = 0; h < H; ++h) rows_.push_back(static_cast<float>(per_head("Trap", h)));
    copy("Angles", F);  // the same for all heads
  }

  std::map<std::string, Tensor> arrays_;
  Floats rows_;
};

struct Case {
  const char* file;
  double bar;  // relative RMS; what bf16 leaves of a precise implementation (spec/mamba.md §4.3)
};

class GoldensMamba3 : public testing::TestWithParam<Case> {};

// Trap C5: the published activation of A. Trap C6: the pairing of each variant.
TEST_P(GoldensMamba3, TrapsC5_C6_OfficialKernels) {
  const fs::path file = shared("data/goldens") / GetParam().file;
  KRAIT_NEEDS_SHARED(file);
  const Golden golden(file);
  for (const KernelSet* set : cpu_kernel_sets()) {
    const Floats out = golden.run(*set);
    const double error = relative_rms(out.data(), golden.want().f32(), golden.want().numel());
    std::printf("%s %-15s relative RMS %.3f %%\n", GetParam().file, set->name, 100 * error);
    EXPECT_LE(error, GetParam().bar) << set->name;
  }
}

constexpr double kSiso = 0.7e-2, kMimo = 0.55e-2;
INSTANTIATE_TEST_SUITE_P(Files, GoldensMamba3,
                         testing::Values(Case{"mamba3_siso/mamba3_siso_combined_00.npz", kSiso},
                                         Case{"mamba3_siso/mamba3_siso_combined_02.npz", kSiso},
                                         Case{"mamba3_siso/mamba3_siso_combined_04.npz", kSiso},
                                         Case{"mamba3_siso/mamba3_siso_combined_05.npz", kSiso},
                                         Case{"mamba3_siso/mamba3_siso_combined_07.npz", kSiso},
                                         Case{"mamba3_mimo/mamba3_mimo_combined_00.npz", kMimo},
                                         Case{"mamba3_mimo/mamba3_mimo_combined_02.npz", kMimo},
                                         Case{"mamba3_mimo/mamba3_mimo_combined_04.npz", kMimo},
                                         Case{"mamba3_mimo/mamba3_mimo_combined_05.npz", kMimo},
                                         Case{"mamba3_mimo/mamba3_mimo_combined_09.npz", kMimo}));

}  // namespace
}  // namespace krait::test
