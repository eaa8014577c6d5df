#include "krait/kernels/reference/mamba3_scan_grad.h"

#include <utility>

#include "krait/backends/cpu/kernel_testing.h"
#include "tests/bounded.h"

namespace krait {

// Sines and cosines: the kernels err by 1.5 ulp, and by the error of the angle itself.
namespace {
thread_local double angle_error = 0;
}
template <>
std::pair<testing_util::Bounded, testing_util::Bounded> reference::mamba3_cos_sin<testing_util::Bounded>(
    int32_t phase) {
  const double theta = static_cast<double>(phase) * (0x1p-31 * std::numbers::pi);
  const double error = angle_error + 3 * tolerance::kF32Unit;
  return {{std::cos(theta), 1, error}, {std::sin(theta), 1, error}};
}

namespace {

using namespace testing_util;

constexpr auto kHalves = RotaryPairing::kHalves;
constexpr auto kInterleaved = RotaryPairing::kInterleaved;

struct Sizes {
  int64_t H, P, N, G, R, F;
  RotaryPairing pairing = kInterleaved;
  bool out_norm = false, softplus_A = false;
  int64_t row() const { return 2 * H * P + 2 * R * G * N + 3 * H + F; }
  std::string str() const {
    std::string s = "H P N G R F";
    for (int64_t v : {H, P, N, G, R, F}) s += " " + std::to_string(v);
    return s + (pairing == kHalves ? " halves" : " interleaved") + (out_norm ? " norm" : "") +
           (softplus_A ? " softplus " : " ");
  }
};

// Everything a call reads, in f32, and what its gradients are added to.
struct Inputs {
  Inputs(const Sizes& sizes, const SeqSpans& s, uint64_t seed) : n(sizes), spans(s), T(s.n_tokens()) {
    const auto next = [&](int64_t count, double scale = 1) { return normals(count, seed++, scale); };
    rows = next(T * ld());
    for (auto* v : {&dt_bias, &D}) *v = next(n.H);
    for (auto* v : {&B_bias, &C_bias}) *v = next(n.H * n.R * n.N);
    for (auto* v : {&B_norm, &C_norm}) *v = next(n.N);
    for (auto* v : {&mimo_x, &mimo_z, &mimo_o}) *v = next(n.H * n.R * n.P);
    out_norm = next(n.H * n.P);
    const int64_t seqs = s.n_seqs();
    for (float f : next(seqs * n.H * n.F)) phase.push_back(static_cast<int32_t>(f * 0x1p29f));
    S = next(seqs * n.H * n.N * n.P);
    k = next(seqs * n.R * n.H * n.N);
    x_prev = next(seqs * n.H * n.P);
    dout = next(T * n.H * n.P);
    for (int64_t size : {T * ld(), n.H, n.H * n.R * n.N, n.H * n.R * n.N, n.N, n.N, n.H, n.H * n.R * n.P,
                         n.H * n.R * n.P, n.H * n.R * n.P, n.H * n.P, 8 * stride(n.H * n.F),
                         8 * stride(n.H * n.N * n.P), 8 * stride(n.R * n.H * n.N), 8 * stride(n.H * n.P)}) {
      start.push_back(next(size));
    }
  }
  int64_t ld() const { return n.row() + 3; }
  static int64_t stride(int64_t width) { return width + 5; }

  Sizes n;
  SeqSpans spans;
  int64_t T;
  std::vector<float> rows, dt_bias, B_bias, C_bias, B_norm, C_norm, D, mimo_x, mimo_z, mimo_o, out_norm;
  std::vector<int32_t> phase;
  std::vector<float> S, k, x_prev, dout;
  std::vector<std::vector<float>> start;
};

constexpr const char* kNames[] = {"rows",      "ddt_bias", "dB_bias", "dC_bias", "dB_norm",
                                  "dC_norm",   "dD",       "dmimo_x", "dmimo_z", "dmimo_o",
                                  "dout_norm", "dphase",   "dS",      "dk",      "dx_prev"};
constexpr size_t kFirstState = 11;

// The inputs and their gradients as Real.
template <class Real>
struct Case {
  explicit Case(const Inputs& inputs) : in(inputs) {
    for (const auto* v : {&in.rows, &in.dt_bias, &in.B_bias, &in.C_bias, &in.B_norm, &in.C_norm, &in.D, &in.mimo_x,
                          &in.mimo_z, &in.mimo_o, &in.out_norm, &in.S, &in.k, &in.x_prev, &in.dout}) {
      values.emplace_back(v->begin(), v->end());
    }
    for (const auto& v : in.start) out.emplace_back(v.begin(), v.end());
  }

  Mamba3ScanGradParamsOf<Real> params() {
    const Sizes& n = in.n;
    Mamba3ScanGradParamsOf<Real> p{};
    Mamba3ScanParamsOf<Real>& f = p.f;
    f.spans = view(in.spans);
    const int64_t widths[] = {n.H * n.P, n.H * n.P, n.R * n.G * n.N, n.R * n.G * n.N, n.H, n.H, n.H, n.F};
    const Real** slices[] = {&f.z, &f.x, &f.B, &f.C, &f.dd_dt, &f.dd_A, &f.trap, &f.angle};
    Real** grads[] = {&p.dz, &p.dx, &p.dB, &p.dC, &p.ddd_dt, &p.ddd_A, &p.dtrap, &p.dangle};
    for (int64_t i = 0, at = 0; i < 8; at += widths[i++]) {
      *slices[i] = values[0].data() + at;
      *grads[i] = out[0].data() + at;
    }
    f.ld = p.ldd = in.ld();
    const Real** vectors[] = {&f.dt_bias, &f.B_bias, &f.C_bias, &f.B_norm, &f.C_norm,
                              &f.D,       &f.mimo_x, &f.mimo_z, &f.mimo_o, &f.out_norm};
    Real** dvectors[] = {&p.ddt_bias, &p.dB_bias, &p.dC_bias, &p.dB_norm, &p.dC_norm,
                         &p.dD,       &p.dmimo_x, &p.dmimo_z, &p.dmimo_o, &p.dout_norm};
    for (size_t i = 0; i < 10; ++i) {
      if ((i >= 6 && i < 9 && n.R == 1) || (i == 9 && !n.out_norm)) continue;
      *vectors[i] = values[i + 1].data();
      *dvectors[i] = out[i + 1].data();
    }
    f.eps = 1e-5f;
    f.A_floor = 0.25f;  // some heads are at the floor, some are not
    f.softplus_A = n.softplus_A;
    f.pairing = n.pairing;
    f.H = n.H, f.P = n.P, f.N = n.N, f.G = n.G, f.R = n.R, f.F = n.F;
    p.phase_before = in.phase.data();
    p.S_before = values[11].data(), p.k_before = values[12].data(), p.x_prev_before = values[13].data();
    p.dout = values[14].data(), p.lddout = n.H * n.P;
    p.dphase = out[11].data(), p.dphase_stride = Inputs::stride(n.H * n.F);
    p.dS = out[12].data(), p.dS_stride = Inputs::stride(n.H * n.N * n.P);
    p.dk = out[13].data(), p.dk_stride = Inputs::stride(n.R * n.H * n.N);
    p.dx_prev = out[14].data(), p.dx_prev_stride = Inputs::stride(n.H * n.P);
    return p;
  }

  const Inputs& in;
  std::vector<std::vector<Real>> values, out;
};

std::vector<std::vector<float>> gradients(const KernelSet& set, ThreadPool& pool, const Inputs& in) {
  Case<float> c(in);
  set.mamba3_scan_grad({&pool}, c.params());
  return c.out;
}

// The same by the reference, with bounds of what f32 arithmetic in any order may make of it.
std::vector<std::vector<Bounded>> exact(const Inputs& in) {
  Case<Bounded> c(in);
  const Mamba3ScanGradParamsOf<Bounded> p = c.params();
  for (int64_t s = 0; s < in.spans.n_seqs(); ++s) {
    const auto serial = [&](int64_t count, auto body) {
      for (int64_t i = 0; i < count; ++i) {
        angle_error = 0;  // of head i: its steps π·tanh(angle)·dt, dt with its error, tanh 5 u, products; 2^-32 turn
        for (int64_t t = in.spans.offset[static_cast<size_t>(s)];
             count == in.n.H && t < in.spans.offset[static_cast<size_t>(s) + 1]; ++t) {
          const Bounded dt = reference::mamba3_gates<Bounded>(p.f, t, i).dt;
          angle_error += 3.15 * (dt.error + 8 * tolerance::kF32Unit * dt.value) + 0x1p-29;
        }
        body(i);
      }
    };
    reference::mamba3_sequence_grad(p, s, p.phase_before + s * in.n.H * in.n.F, serial);
  }
  return c.out;
}

// Within the bounds, and far closer on the whole.
void expect_matches(const KernelSet& set, ThreadPool& pool, const Inputs& in,
                    const std::vector<std::vector<Bounded>>& want) {
  const auto got = gradients(set, pool, in);
  for (size_t i = 0; i < got.size(); ++i) {
    const std::string where = set.name + (" " + in.n.str()) + kNames[i];
    expect_bounded(got[i], want[i], where);
    double error = 0, size = 0;
    for (size_t j = 0; j < got[i].size(); ++j) {
      error += std::pow(static_cast<double>(got[i][j]) - want[i][j].value, 2);
      size += want[i][j].value * want[i][j].value;
    }
    EXPECT_LE(std::sqrt(error), 3e-5 * std::sqrt(size)) << where;  // angles of some 50 radians in f32
  }
}

class Mamba3ScanGrad : public testing::TestWithParam<const KernelSet*> {
 protected:
  ThreadPool pool_{2};
};

// Traps A8 (states have gradients), B2, B12 (any size and group count), C5 (both forms of A), C6 (both pairings).
TEST_P(Mamba3ScanGrad, TrapsA8_B2_B12_C5_C6_MatchesTheReference) {
  constexpr Sizes kSizes[] = {
      {2, 64, 128, 1, 1, 32},                         // published SISO, fewer heads
      {1, 64, 128, 1, 4, 32, kHalves},                // published MIMO
      {4, 16, 16, 2, 1, 8, kInterleaved, true},       // all dimensions turn; output norm; groups
      {4, 24, 20, 4, 2, 5, kHalves, true, true},      // a group a head; softplus A
      {3, 5, 7, 1, 1, 3, kInterleaved, false, true},  // odd sizes
      {6, 33, 9, 2, 3, 4, kHalves, true},             // a chunk with rows left over
      {1, 1, 1, 1, 1, 0},                             // nothing turns
      {1, 20, 33, 1, 8, 16, kInterleaved, true},      // MIMO with the other pairing
      {2, 3, 6, 1, 19, 2, kHalves},                   // more ranks than lanes
  };
  for (const Sizes& n : kSizes) {
    const Inputs in(n, packed({5, 0, 1, 2, 19}), 1);
    expect_matches(*GetParam(), pool_, in, exact(in));
  }
}

// Several of the kernel's windows, of chunks of 16 rows.
TEST_P(Mamba3ScanGrad, LongSequencesMatchTheReference) {
  for (const Sizes& n : {Sizes{2, 5, 6, 1, 1, 2}, Sizes{1, 3, 4, 1, 4, 1, kHalves, true}}) {
    const Inputs in(n, packed({300, 3, 129}), 2);
    expect_matches(*GetParam(), pool_, in, exact(in));
  }
}

// Traps A7 (packed sequences are separate) and B9: the same bits in one call or in several, with any threads.
TEST_P(Mamba3ScanGrad, TrapsA7_B9_PackedEqualsSeparateAndThreadsDoNotShow) {
  for (const Sizes& n : {Sizes{4, 17, 12, 2, 1, 4}, Sizes{3, 6, 10, 1, 4, 3, kHalves, true}}) {
    const Inputs in(n, packed({3, 0, 1, 150, 0, 2, 33, 16}), 3);
    Case<float> alone(in);
    for (size_t s = 0; s < in.spans.slot.size(); ++s) {
      const SeqSpans one = SeqSpans::one(in.spans.length(static_cast<int64_t>(s)), in.spans.slot[s]);
      Mamba3ScanGradParams p = alone.params();
      const int64_t t = in.spans.offset[s], seq = static_cast<int64_t>(s), heads = n.H;
      p.f.spans = view(one);
      for (const float** x : {&p.f.z, &p.f.x, &p.f.B, &p.f.C, &p.f.dd_dt, &p.f.dd_A, &p.f.trap, &p.f.angle}) {
        *x += t * p.f.ld;
      }
      for (float** x : {&p.dz, &p.dx, &p.dB, &p.dC, &p.ddd_dt, &p.ddd_A, &p.dtrap, &p.dangle}) *x += t * p.ldd;
      p.dout += t * p.lddout;
      p.phase_before += seq * heads * n.F, p.S_before += seq * heads * n.N * n.P;
      p.k_before += seq * n.R * heads * n.N, p.x_prev_before += seq * heads * n.P;
      GetParam()->mamba3_scan_grad({&pool_}, p);
    }
    for (const int threads : {1, 3}) {
      ThreadPool pool(threads);
      const auto together = gradients(*GetParam(), pool, in);
      for (size_t i = 0; i < together.size(); ++i) {
        EXPECT_EQ(together[i], alone.out[i]) << n.str() << kNames[i] << ", threads " << threads;
      }
    }
  }
}

TEST_P(Mamba3ScanGrad, ParametersNeedNotBeWanted) {
  const Inputs in({2, 6, 10, 1, 2, 3, kHalves, true}, packed({7, 20}), 4);
  const auto all = gradients(*GetParam(), pool_, in);
  Case<float> some(in);
  Mamba3ScanGradParams p = some.params();
  p.ddt_bias = p.dB_bias = p.dC_bias = p.dB_norm = p.dC_norm = p.dD = nullptr;
  p.dmimo_x = p.dmimo_z = p.dmimo_o = p.dout_norm = nullptr;
  GetParam()->mamba3_scan_grad({&pool_}, p);
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(some.out[i], i == 0 || i >= kFirstState ? all[i] : in.start[i]) << kNames[i];
  }
}

// Traps B4, B11: inputs that bf16 rounded, dt up to 11, 32K steps, decays from none to all at once, large activations.
TEST_P(Mamba3ScanGrad, TrapsB4_B11_ExtremesInBf16StayFinite) {
  for (const auto& [n, T] :
       {std::pair{Sizes{4, 2, 4, 1, 1, 2}, 32768}, {Sizes{4, 8, 16, 1, 4, 4, kHalves, true}, 1024}}) {
    Inputs in(n, packed({T}), 5);
    const int64_t dd_dt = 2 * n.H * n.P + 2 * n.R * n.G * n.N;
    for (int64_t t = 0; t < in.T; ++t) {
      float* row = in.rows.data() + t * in.ld();
      for (int64_t i = 0; i < dd_dt; ++i) row[i] *= t % 7 == 0 ? 100.0f : 1.0f;
      for (int64_t h = 0; h < n.H; ++h) {
        constexpr float kExtreme[] = {-200.0f, 100.0f, 1e4f, -1e4f, 0.0f};
        row[dd_dt + h] = static_cast<float>((t + h) % 24) - 12;  // dt up to 11
        row[dd_dt + n.H + h] = kExtreme[(t / 3 + h) % 5];
        row[dd_dt + 2 * n.H + h] = kExtreme[(t / 5 + 2 * h) % 5];
      }
    }
    for (float& v : in.rows) {
      uint32_t bits;
      std::memcpy(&bits, &v, 4);
      bits = (bits + 0x8000u) & 0xFFFF0000u;
      std::memcpy(&v, &bits, 4);
    }
    for (const auto& values : gradients(*GetParam(), pool_, in)) {
      for (const float v : values) ASSERT_TRUE(std::isfinite(v)) << n.str();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Mamba3ScanGrad, testing::ValuesIn(cpu_kernel_sets()), set_name);

}  // namespace
}  // namespace krait
