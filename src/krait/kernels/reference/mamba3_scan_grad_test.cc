// The gradients of the Mamba-3 scan against complex steps through its forward reference: an imaginary part of 1e-30 in
// one input gives that input's derivative without cancellation.
#include "krait/kernels/reference/mamba3_scan_grad.h"

#include <gtest/gtest.h>

#include <complex>
#include <numeric>
#include <string>

#include "krait/core/rng.h"

namespace krait {
namespace {

using Complex = std::complex<double>;

struct Sizes {
  int64_t H, P, N, G, R, F;
  RotaryPairing pairing;
  bool mimo, out_norm, softplus_A;
  std::vector<int64_t> lengths;
  // Widths of the slices of a row: z, x, B, C, dd_dt, dd_A, trap, angle.
  std::vector<int64_t> widths() const { return {H * P, H * P, R * G * N, R * G * N, H, H, H, F}; }
  int64_t row() const {
    const auto w = widths();
    return std::accumulate(w.begin(), w.end(), int64_t{0});
  }
  int64_t tokens() const { return std::accumulate(lengths.begin(), lengths.end(), int64_t{0}); }
  int64_t n_seqs() const { return static_cast<int64_t>(lengths.size()); }
};

constexpr auto kHalves = RotaryPairing::kHalves;
constexpr auto kInterleaved = RotaryPairing::kInterleaved;
const Sizes kSizes[] = {
    {2, 3, 4, 1, 1, 1, kInterleaved, false, false, false, {3, 0, 1, 5}},  // SISO as published
    {2, 3, 6, 1, 2, 2, kHalves, true, false, false, {2, 1, 0, 4}},        // MIMO as published
    {4, 2, 5, 2, 3, 2, kHalves, true, true, true, {0, 3, 2}},             // groups, output norm, softplus A
    {3, 5, 7, 3, 1, 3, kInterleaved, false, true, true, {5, 1}},          // a group a head, odd sizes
    {2, 2, 4, 1, 2, 2, kInterleaved, true, true, false, {4}},             // MIMO with the other pairing
    {2, 3, 3, 1, 1, 0, kHalves, false, false, false, {2, 2}},             // nothing turns
    {1, 1, 2, 1, 1, 1, kInterleaved, false, true, false, {35, 0, 33}},    // beyond one chunk
};

// Everything the scan reads; with gradients in their place, everything it has gradients of.
template <class T>
struct Values {
  std::vector<T> rows, dt_bias, B_bias, C_bias, B_norm, C_norm, D, mimo_x, mimo_z, mimo_o, out_norm;
  std::vector<T> phase, S, k, x_prev;  // before [n_seqs, …]

  template <class F>
  void each(F f) {
    int i = 0;
    for (auto* v : {&rows, &dt_bias, &B_bias, &C_bias, &B_norm, &C_norm, &D, &mimo_x, &mimo_z, &mimo_o, &out_norm,
                    &phase, &S, &k, &x_prev}) {
      f(i++, *v);
    }
  }
};
constexpr const char* kNames[] = {"rows",   "dt_bias", "B_bias",   "C_bias", "B_norm", "C_norm", "D",     "mimo_x",
                                  "mimo_z", "mimo_o",  "out_norm", "phase",  "S",      "k",      "x_prev"};
constexpr int kFirstState = 11;

class Problem {
 public:
  explicit Problem(const Sizes& sizes, uint64_t seed) : n(sizes), rng_(seed) {
    const auto fill = [&](std::vector<double>& v, int64_t size) { v = normals(size); };
    fill(values.rows, n.tokens() * n.row());
    for (auto* v : {&values.dt_bias, &values.D}) fill(*v, n.H);
    for (auto* v : {&values.B_bias, &values.C_bias}) fill(*v, n.H * n.R * n.N);
    for (auto* v : {&values.B_norm, &values.C_norm}) fill(*v, n.N);
    for (auto* v : {&values.mimo_x, &values.mimo_z, &values.mimo_o}) fill(*v, n.mimo ? n.H * n.R * n.P : 0);
    fill(values.out_norm, n.out_norm ? n.H * n.P : 0);
    fill(values.phase, n.n_seqs() * n.H * n.F);
    fill(values.S, n.n_seqs() * n.H * n.N * n.P);
    fill(values.k, n.n_seqs() * n.R * n.H * n.N);
    fill(values.x_prev, n.n_seqs() * n.H * n.P);
    values.each([&](int i, const auto& v) {
      if (i >= kFirstState) final_weights.push_back(normals(static_cast<int64_t>(v.size())));
    });
    dout = normals(n.tokens() * n.H * n.P);
    for (int64_t s = 0; s < n.n_seqs(); ++s) {
      offset.push_back(offset.back() + n.lengths[static_cast<size_t>(s)]);
      slot.push_back(static_cast<int32_t>(n.n_seqs() - 1 - s));
    }
  }

  std::vector<double> normals(int64_t count) {
    std::vector<double> v(static_cast<size_t>(count));
    for (double& x : v) x = rng_.normal();
    return v;
  }

  template <class T>
  Mamba3ScanParamsOf<T> params(const Values<T>& v) const {
    const auto or_null = [](const std::vector<T>& a) { return a.empty() ? nullptr : a.data(); };
    Mamba3ScanParamsOf<T> p{};
    p.spans = {offset.data(), slot.data(), n.n_seqs()};
    const T* at = v.rows.data();
    const T** slices[] = {&p.z, &p.x, &p.B, &p.C, &p.dd_dt, &p.dd_A, &p.trap, &p.angle};
    for (size_t i = 0; i < 8; ++i) {
      *slices[i] = at;
      at += n.widths()[i];
    }
    p.ld = n.row();
    p.dt_bias = v.dt_bias.data();
    p.B_bias = v.B_bias.data();
    p.C_bias = v.C_bias.data();
    p.B_norm = v.B_norm.data();
    p.C_norm = v.C_norm.data();
    p.D = v.D.data();
    p.mimo_x = or_null(v.mimo_x);
    p.mimo_z = or_null(v.mimo_z);
    p.mimo_o = or_null(v.mimo_o);
    p.out_norm = or_null(v.out_norm);
    p.eps = 0.125f;
    p.A_floor = 0.5f;  // some heads are at the floor, some are not
    p.softplus_A = n.softplus_A;
    p.pairing = n.pairing;
    p.H = n.H;
    p.P = n.P;
    p.N = n.N;
    p.G = n.G;
    p.R = n.R;
    p.F = n.F;
    return p;
  }

  // Σ dout·out + Σ final_weights·final states
  template <class T>
  T loss(Values<T> v) const {
    const Mamba3ScanParamsOf<T> p = params(v);
    std::vector<T> out(dout.size());
    for (int64_t s = 0; s < n.n_seqs(); ++s) {
      for (int64_t h = 0; h < n.H; ++h) {
        const int64_t head = s * n.H + h, t0 = offset[static_cast<size_t>(s)];
        const reference::Mamba3HeadState<T, T> state{v.phase.data() + head * n.F, v.S.data() + head * n.N * n.P,
                                                     v.k.data() + (s * n.R * n.H + h) * n.N, n.H * n.N,
                                                     v.x_prev.data() + head * n.P};
        reference::mamba3_head<T>(p, t0, offset[static_cast<size_t>(s) + 1], h, state,
                                  out.data() + (t0 * n.H + h) * n.P, n.H * n.P);
      }
    }
    T sum = 0;
    for (size_t i = 0; i < out.size(); ++i) sum += dout[i] * out[i];
    v.each([&](int i, const std::vector<T>& state) {
      if (i < kFirstState) return;
      const auto& w = final_weights[static_cast<size_t>(i - kFirstState)];
      for (size_t j = 0; j < w.size(); ++j) sum += w[j] * state[j];
    });
    return sum;
  }

  // Adds to `d`; its states come out as gradients of the states before. Not wanted: those of parameters.
  void gradients(Values<double>& d, bool wanted = true) const {
    const auto by_slot = [&](const std::vector<double>& from, std::vector<double>& to) {
      const auto width = from.size() / slot.size();
      for (size_t s = 0; s < slot.size(); ++s) {
        std::copy_n(from.data() + s * width, width, to.data() + static_cast<size_t>(slot[s]) * width);
      }
    };
    const auto or_null = [wanted](std::vector<double>& a) { return a.empty() || !wanted ? nullptr : a.data(); };
    Values<double> states = d;  // by slot
    by_slot(final_weights[0], states.phase);
    by_slot(final_weights[1], states.S);
    by_slot(final_weights[2], states.k);
    by_slot(final_weights[3], states.x_prev);
    Mamba3ScanGradParamsOf<double> p{};
    p.f = params(values);
    p.S_before = values.S.data();
    p.k_before = values.k.data();
    p.x_prev_before = values.x_prev.data();
    p.dout = dout.data();
    p.lddout = n.H * n.P;
    double* at = d.rows.data();
    double** slices[] = {&p.dz, &p.dx, &p.dB, &p.dC, &p.ddd_dt, &p.ddd_A, &p.dtrap, &p.dangle};
    for (size_t i = 0; i < 8; ++i) {
      *slices[i] = at;
      at += n.widths()[i];
    }
    p.ldd = n.row();
    p.ddt_bias = or_null(d.dt_bias);
    p.dB_bias = or_null(d.B_bias);
    p.dC_bias = or_null(d.C_bias);
    p.dB_norm = or_null(d.B_norm);
    p.dC_norm = or_null(d.C_norm);
    p.dD = or_null(d.D);
    p.dmimo_x = or_null(d.mimo_x);
    p.dmimo_z = or_null(d.mimo_z);
    p.dmimo_o = or_null(d.mimo_o);
    p.dout_norm = or_null(d.out_norm);
    p.dphase = states.phase.data();
    p.dphase_stride = n.H * n.F;
    p.dS = states.S.data();
    p.dS_stride = n.H * n.N * n.P;
    p.dk = states.k.data();
    p.dk_stride = n.R * n.H * n.N;
    p.dx_prev = states.x_prev.data();
    p.dx_prev_stride = n.H * n.P;
    const auto serial = [](int64_t count, auto body) {
      for (int64_t i = 0; i < count; ++i) body(i);
    };
    for (int64_t s = 0; s < n.n_seqs(); ++s) {
      reference::mamba3_sequence_grad(p, s, values.phase.data() + s * n.H * n.F, serial);
    }
    // slot s <-> n_seqs − 1 − s is its own inverse.
    by_slot(states.phase, d.phase);
    by_slot(states.S, d.S);
    by_slot(states.k, d.k);
    by_slot(states.x_prev, d.x_prev);
  }

  Sizes n;
  Values<double> values;
  std::vector<std::vector<double>> final_weights;  // gradients of the final states
  std::vector<double> dout;
  std::vector<int64_t> offset{0};
  std::vector<int32_t> slot;

 private:
  Rng rng_;
};

// By element: relative to it and to the root mean square of its tensor.
void expect_close(const std::string& what, const std::vector<double>& got, const std::vector<double>& want) {
  double squares = 0;
  for (double w : want) squares += w * w;
  const double rms = want.empty() ? 0 : std::sqrt(squares / static_cast<double>(want.size()));
  EXPECT_TRUE(want.empty() || rms > 0) << what;
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_LE(std::abs(got[i] - want[i]), 1e-9 * (std::abs(want[i]) + 0.1 * rms)) << what << " " << i << " " << want[i];
  }
}

// Traps A8 (initial and final states have gradients), B12 (groups), C5 (both forms of A), C6 (both pairings).
TEST(Mamba3ScanGrad, TrapsA8_B12_C5_C6_AgreesWithComplexSteps) {
  uint64_t seed = 1;
  for (const Sizes& n : kSizes) {
    SCOPED_TRACE("case " + std::to_string(seed));
    Problem problem(n, seed++);
    Values<Complex> at;
    std::vector<std::vector<Complex>*> inputs;
    at.each([&](int, auto& v) { inputs.push_back(&v); });
    Values<double> before = problem.values;  // gradients are added to what is there
    before.each([&](int, auto& v) { v = problem.normals(static_cast<int64_t>(v.size())); });
    Values<double> d = before;
    problem.gradients(d);
    problem.values.each([&](int i, const auto& v) { inputs[static_cast<size_t>(i)]->assign(v.begin(), v.end()); });
    std::vector<std::vector<double>> added;
    before.each([&](int, const auto& v) { added.push_back(v); });
    d.each([&](int i, std::vector<double>& got) {
      std::vector<double> want;
      for (Complex& x : *inputs[static_cast<size_t>(i)]) {
        x += Complex(0, 1e-30);
        want.push_back(problem.loss(at).imag() * 1e30);
        x = x.real();
      }
      if (i < kFirstState) {
        for (size_t j = 0; j < got.size(); ++j) got[j] -= added[static_cast<size_t>(i)][j];
      }
      if (i > 0) return expect_close(kNames[i], got, want);
      int64_t first = 0;
      for (size_t slice = 0; slice < 8; first += n.widths()[slice++]) {
        std::vector<double> a, b;
        for (int64_t t = 0; t < n.tokens(); ++t) {
          const auto from = t * n.row() + first, to = from + n.widths()[slice];
          a.insert(a.end(), got.begin() + from, got.begin() + to);
          b.insert(b.end(), want.begin() + from, want.begin() + to);
        }
        expect_close("rows, slice " + std::to_string(slice), a, b);
      }
    });
  }
}

// Gradients of parameters that are not wanted change nothing else.
TEST(Mamba3ScanGrad, ParametersMayBeLeftOut) {
  const Problem problem(kSizes[2], 9);
  Values<double> all = problem.values, some = problem.values;
  problem.gradients(all);
  problem.gradients(some, false);
  std::vector<std::vector<double>> want;
  all.each([&](int i, const auto& v) { want.push_back(i == 0 || i >= kFirstState ? v : std::vector<double>{}); });
  Values<double> values = problem.values;
  values.each([&](int i, const auto& v) {
    if (i > 0 && i < kFirstState) want[static_cast<size_t>(i)] = v;
  });
  some.each([&](int i, const auto& v) { EXPECT_EQ(v, want[static_cast<size_t>(i)]) << kNames[i]; });
}

}  // namespace
}  // namespace krait
