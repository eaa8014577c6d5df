// The Mamba-1 and Mamba-2 scans of every kernel set against recorded cases: float64 truths of the selective scan (among
// them real activations of a published model), and a published implementation of SSD.
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "krait/core/seq_spans.h"
#include "krait/io/npy.h"
#include "tests/test_models.h"

namespace krait::test {
namespace {

constexpr double kBar = 1e-5;  // relative RMS of outputs and of final states

using Floats = std::vector<float>;

fs::path folder(const char* name) { return fs::path(KRAIT_SHARED_DIR) / "data/goldens" / name; }

// [B, D, L] -> rows [B·L, D].
Floats rows_of(const Tensor& t) {
  const int64_t B = t.dim(0), D = t.dim(1), L = t.dim(2);
  Floats rows;
  for (int64_t i = 0; i < B * L; ++i) {
    for (int64_t d = 0; d < D; ++d) rows.push_back(t.f32()[(i / L * D + d) * L + i % L]);
  }
  return rows;
}

// One case of goldens/mamba1_scan: u, delta, z [B, E, L], B, C [B, N, L], A [E, N], out [B, E, L], last_state [B, E,
// N].
class SelectiveScan {
 public:
  explicit SelectiveScan(const fs::path& file) : arrays_(io::read_npz(file)) {
    batch_ = at("u").dim(0);
    E_ = at("u").dim(1);
    L_ = at("u").dim(2);
    N_ = at("A").dim(1);
    const Tensor& meta = at("meta_json");
    const std::string text(reinterpret_cast<const char*>(meta.bytes()), static_cast<size_t>(meta.nbytes()));
    softplus_ = text.find("\"delta_softplus\": true") != std::string::npos;
    for (int64_t n = 0; n < N_; ++n) {
      for (int64_t e = 0; e < E_; ++e) A_.push_back(at("A").f32()[e * N_ + n]);
    }
  }

  // Relative RMS errors of outputs and final states, all sequences packed into one call.
  std::pair<double, double> errors(const KernelSet& set) const {
    SeqSpans spans;
    for (int64_t b = 0; b < batch_; ++b) spans.add(L_, static_cast<int32_t>(b));
    const Floats x = rows_of(at("u")), dt = rows_of(at("delta")), B = rows_of(at("B")), C = rows_of(at("C"));
    Floats z, y(x.size()), state(static_cast<size_t>(batch_ * N_ * E_));
    Mamba1ScanParams p{};
    p.spans = {spans.offset.data(), spans.slot.data(), batch_};
    p.x = x.data(), p.ldx = E_;
    p.dt = dt.data(), p.lddt = E_;
    p.B = B.data(), p.ldb = N_;
    p.C = C.data(), p.ldc = N_;
    if (arrays_.contains("z")) {
      z = rows_of(at("z"));
      p.z = z.data(), p.ldz = E_;
    }
    p.A = A_.data();
    if (arrays_.contains("D_skip")) p.D = at("D_skip").f32();
    if (arrays_.contains("delta_bias")) p.dt_bias = at("delta_bias").f32();
    p.softplus = softplus_;
    p.y = y.data(), p.ldy = E_;
    p.state = state.data(), p.state_stride = N_ * E_;
    p.E = E_, p.N = N_;
    set.mamba1_scan({&pool()}, p);

    std::vector<double> want_y, want_state;
    for (int64_t i = 0; i < batch_ * L_; ++i) {
      for (int64_t e = 0; e < E_; ++e) want_y.push_back(f64("out_f64", (i / L_ * E_ + e) * L_ + i % L_));
    }
    for (int64_t b = 0; b < batch_; ++b) {
      for (int64_t n = 0; n < N_; ++n) {
        for (int64_t e = 0; e < E_; ++e) want_state.push_back(f64("last_state_f64", (b * E_ + e) * N_ + n));
      }
    }
    return {relative_rms(y.data(), want_y.data(), batch_ * L_ * E_),
            relative_rms(state.data(), want_state.data(), batch_ * N_ * E_)};
  }

 private:
  const Tensor& at(const std::string& name) const { return arrays_.at(name); }
  double f64(const std::string& name, int64_t i) const { return at(name).data<double>()[i]; }

  std::map<std::string, Tensor> arrays_;
  int64_t batch_, E_, L_, N_;
  bool softplus_;
  Floats A_;
};

TEST(Goldens, Mamba1Scan) {
  if (!fs::exists(folder("mamba1_scan"))) GTEST_SKIP() << "no " << folder("mamba1_scan");
  std::set<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder("mamba1_scan"))) {
    if (entry.path().extension() == ".npz") files.insert(entry.path());
  }
  EXPECT_EQ(files.size(), 12u);
  for (const fs::path& file : files) {
    const SelectiveScan golden(file);
    for (const KernelSet* set : cpu_kernel_sets()) {
      const auto [y, state] = golden.errors(*set);
      fmt::print("mamba1_scan {:16} {:16} outputs {:.2e}, final states {:.2e}\n", file.stem().string(), set->name, y,
                 state);
      EXPECT_LE(y, kBar);
      EXPECT_LE(state, kBar);
    }
  }
}

// X [1, T, H, P] is dt·x and A [1, T, H] is dt·A. With A = −1 in the kernel dt is −A of the case, before softplus
// log(e^dt − 1), and x = X / dt. B, C [1, T, H, N]: as many groups as heads. Y [1, T, H, P], final_state [1, H, P, N].
TEST(Goldens, Mamba2Ssd) {
  const fs::path dir = folder("mamba2_ssd");
  if (!fs::exists(dir)) GTEST_SKIP() << "no " << dir;
  const Tensor X = io::read_npy(dir / "X.npy"), A = io::read_npy(dir / "A.npy"), B = io::read_npy(dir / "B.npy");
  const Tensor C = io::read_npy(dir / "C.npy"), Y = io::read_npy(dir / "Y.npy");
  const Tensor last = io::read_npy(dir / "final_state.npy");
  const int64_t T = X.dim(1), H = X.dim(2), P = X.dim(3), N = B.dim(3);
  Floats x, raw;
  for (int64_t i = 0; i < T * H; ++i) {
    const double dt = -static_cast<double>(A.f32()[i]);
    raw.push_back(static_cast<float>(std::log(std::expm1(dt))));
    for (int64_t c = 0; c < P; ++c) x.push_back(static_cast<float>(static_cast<double>(X.f32()[i * P + c]) / dt));
  }
  Floats want_state;  // [H, N, P]
  for (int64_t i = 0; i < H * N * P; ++i) {
    want_state.push_back(last.f32()[(i / (N * P) * P + i % P) * N + i / P % N]);
  }
  const Floats minus_one(static_cast<size_t>(H), -1.0f);
  const SeqSpans spans = SeqSpans::one(T, 0);
  for (const KernelSet* set : cpu_kernel_sets()) {
    Floats y(x.size()), state(want_state.size());
    SsdScanParams p{};
    p.spans = {spans.offset.data(), spans.slot.data(), 1};
    p.x = x.data(), p.ldx = H * P;
    p.dt = raw.data(), p.lddt = H;
    p.B = B.f32(), p.ldb = H * N;
    p.C = C.f32(), p.ldc = H * N;
    p.A = minus_one.data();
    p.dt_max = std::numeric_limits<float>::infinity();
    p.y = y.data(), p.ldy = H * P;
    p.state = state.data(), p.state_stride = H * N * P;
    p.H = H, p.P = P, p.N = N, p.G = H;
    set->ssd_scan({&pool()}, p);
    const double y_error = relative_rms(y.data(), Y.f32(), T * H * P);
    const double state_error = relative_rms(state.data(), want_state.data(), H * N * P);
    fmt::print("mamba2_ssd {:16} outputs {:.2e}, final states {:.2e}\n", set->name, y_error, state_error);
    EXPECT_LE(y_error, kBar);
    EXPECT_LE(state_error, kBar);
  }
}

}  // namespace
}  // namespace krait::test
