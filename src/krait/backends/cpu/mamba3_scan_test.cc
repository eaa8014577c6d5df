// Mamba-3 scan: every kernel set against the reference at double with derived bounds, and the exactness contract.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>

#include "krait/backends/cpu/cpu_backend.h"
#include "krait/core/rng.h"
#include "krait/core/seq_spans.h"
#include "krait/kernels/reference/mamba3_scan.h"
#include "tests/running_error.h"

namespace krait {
namespace {

using Floats = std::vector<float>;
using tolerance::Bounded;

struct Sizes {
  int64_t H, P, N, G, R, F;
  RotaryPairing pairing = RotaryPairing::kInterleaved;
  bool out_norm = false, softplus_A = false;
  int64_t row() const { return 2 * H * P + 2 * R * G * N + 3 * H + F; }
  std::string str() const {
    std::string s = "H P N G R F";
    for (int64_t v : {H, P, N, G, R, F}) s += " " + std::to_string(v);
    return s + (pairing == RotaryPairing::kHalves ? " halves" : " interleaved") + (out_norm ? " norm" : "") +
           (softplus_A ? " softplus" : "");
  }
};

constexpr auto kHalves = RotaryPairing::kHalves;
constexpr auto kInterleaved = RotaryPairing::kInterleaved;
constexpr Sizes kSizes[] = {
    {2, 64, 128, 1, 1, 32},                         // published SISO, fewer heads
    {2, 64, 128, 1, 4, 32, kHalves},                // published MIMO
    {4, 16, 16, 2, 1, 8, kInterleaved, true},       // all dimensions turn; output norm; groups
    {4, 24, 20, 4, 2, 5, kHalves, true, true},      // a group a head; softplus A
    {3, 5, 7, 1, 1, 3, kInterleaved, false, true},  // odd sizes
    {6, 33, 9, 2, 3, 4, kHalves, true},             // a rank without a loop of its own
    {1, 1, 1, 1, 1, 0},                             // nothing turns
    {2, 100, 33, 1, 8, 16, kInterleaved, true},     // MIMO with the other pairing
    {3, 17, 64, 3, 5, 20, kHalves},                 //
    {2, 48, 258, 2, 1, 65, kInterleaved},           //
};

struct State {
  std::vector<int32_t> phase;
  Floats S, k, x;
};

template <class V>
bool same_bits(const V& a, const V& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * 4) == 0);
}
bool operator==(const State& a, const State& b) {
  return same_bits(a.phase, b.phase) && same_bits(a.S, b.S) && same_bits(a.k, b.k) && same_bits(a.x, b.x);
}

// Random parameters and T rows of tokens.
class Problem {
 public:
  Problem(const Sizes& sizes, int64_t tokens, uint64_t seed) : n(sizes), T(tokens), rng_(seed) {
    rows = normals(T * n.row(), 1);
    for (Floats* v : {&dt_bias, &D_}) *v = normals(n.H, 1);
    for (Floats* v : {&B_bias_, &C_bias_}) *v = normals(n.H * n.R * n.N, 1);
    for (Floats* v : {&B_norm_, &C_norm_}) *v = normals(n.N, 1);
    for (Floats* v : {&mimo_x_, &mimo_z_, &mimo_o_}) *v = normals(n.H * n.R * n.P, 1);
    out_norm_ = normals(n.H * n.P, 1);
  }

  State zero_state() const {
    const auto size = [](int64_t v) { return static_cast<size_t>(v); };
    return {std::vector<int32_t>(size(n.H * n.F)), Floats(size(n.H * n.N * n.P)), Floats(size(n.R * n.H * n.N)),
            Floats(size(n.H * n.P))};
  }
  State random_state() {
    State s = zero_state();
    for (int32_t& v : s.phase) v = static_cast<int32_t>(rng_.next_u64());
    for (Floats* v : {&s.S, &s.k, &s.x}) *v = normals(static_cast<int64_t>(v->size()), 0.5);
    return s;
  }

  // Rows from `first` on; spans, output and states are the caller's.
  Mamba3ScanParams params(int64_t first = 0) const {
    Mamba3ScanParams p{};
    const float* at = rows.data() + first * n.row();
    const auto next = [&](int64_t width) { return std::exchange(at, at + width); };
    p.z = next(n.H * n.P);
    p.x = next(n.H * n.P);
    p.B = next(n.R * n.G * n.N);
    p.C = next(n.R * n.G * n.N);
    p.dd_dt = next(n.H);
    p.dd_A = next(n.H);
    p.trap = next(n.H);
    p.angle = next(n.F);
    p.ld = n.row();
    p.dt_bias = dt_bias.data();
    p.B_bias = B_bias_.data();
    p.C_bias = C_bias_.data();
    p.B_norm = B_norm_.data();
    p.C_norm = C_norm_.data();
    p.D = D_.data();
    if (n.R > 1) {
      p.mimo_x = mimo_x_.data();
      p.mimo_z = mimo_z_.data();
      p.mimo_o = mimo_o_.data();
    }
    if (n.out_norm) p.out_norm = out_norm_.data();
    p.eps = 1e-5f;
    p.A_floor = 1e-4f;
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

  // One sequence of rows [first, first + length); its output.
  Floats run(const KernelSet& set, ThreadPool& pool, State& s, int64_t first, int64_t length) const {
    const SeqSpans spans = SeqSpans::one(length, 0);
    Mamba3ScanParams p = params(first);
    Floats out(static_cast<size_t>(length * n.H * n.P + 1), 7.0f);
    p.spans = {spans.offset.data(), spans.slot.data(), 1};
    p.out = out.data();
    p.ldo = n.H * n.P;
    p.phase = s.phase.data();
    p.S = s.S.data();
    p.k = s.k.data();
    p.x_prev = s.x.data();
    set.mamba3_scan({&pool}, p);
    EXPECT_EQ(out.back(), 7.0f);
    out.pop_back();
    return out;
  }
  Floats run(const KernelSet& set, ThreadPool& pool, State& s) const { return run(set, pool, s, 0, T); }

  Sizes n;
  int64_t T;
  Floats rows, dt_bias;

 private:
  Floats normals(int64_t count, double scale) {
    Floats v(static_cast<size_t>(count));
    for (float& f : v) f = static_cast<float>(scale * rng_.normal());
    return v;
  }

  Rng rng_;
  Floats B_bias_, C_bias_, B_norm_, C_norm_, D_, mimo_x_, mimo_z_, mimo_o_, out_norm_;
};

// Exact output and final state with error bounds; phase by phase in fixed point.
struct Exact {
  std::vector<int32_t> phase;
  std::vector<Bounded> out, S, k;
  double angle_error = 0;
};

Exact exact(const Problem& problem, const State& start) {
  const Sizes& n = problem.n;
  const Mamba3ScanParams p = problem.params();
  const auto bounded = [](const Floats& v) { return std::vector<Bounded>(v.begin(), v.end()); };
  Exact e{start.phase, std::vector<Bounded>(static_cast<size_t>(problem.T * n.H * n.P)), bounded(start.S),
          bounded(start.k), 0};
  std::vector<Bounded> x = bounded(start.x);
  for (int64_t h = 0; h < n.H; ++h) {
    // A step of π·tanh(angle)·dt: dt to its own error, tanh 2.5 ulp, two products; then 2^-32 turn.
    Bounded::angle_error = 0;
    for (int64_t t = 0; t < problem.T; ++t) {
      const Bounded dt = reference::mamba3_gates<Bounded>(p, t, h).dt;
      Bounded::angle_error += 3.15 * (dt.e + 8 * tolerance::kF32Unit * dt.v) + 0x1p-29;
      const reference::Mamba3HeadState<Bounded> state{e.phase.data() + h * n.F, e.S.data() + h * n.N * n.P,
                                                      e.k.data() + h * n.N, n.H * n.N, x.data() + h * n.P};
      Bounded* out = e.out.data() + (t * n.H + h) * n.P;
      reference::mamba3_head<Bounded>(p, t, t + 1, h, state, out, n.H * n.P);
    }
    e.angle_error = std::max(e.angle_error, Bounded::angle_error);
  }
  return e;
}

// Within twice the bound everywhere (see running_error.h), and far closer on the whole.
void expect_within(const char* what, const Floats& got, const std::vector<Bounded>& want) {
  ASSERT_EQ(got.size(), want.size());
  double error = 0, size = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double d = std::abs(static_cast<double>(got[i]) - want[i].v);
    if (!(d <= 2 * want[i].e)) {
      ADD_FAILURE() << what << " " << i << ": " << got[i] << " for " << want[i].v << ", bound " << 2 * want[i].e;
      return;
    }
    error += d * d;
    size += want[i].v * want[i].v;
  }
  EXPECT_LE(std::sqrt(error / size), 1e-5) << what;
}

void expect_phases(const State& got, const Exact& want) {
  for (size_t i = 0; i < got.phase.size(); ++i) {
    const auto d = static_cast<int32_t>(static_cast<uint32_t>(got.phase[i]) - static_cast<uint32_t>(want.phase[i]));
    ASSERT_LE(std::abs(static_cast<double>(d)) * 0x1p-31 * std::numbers::pi, want.angle_error) << i;
  }
}

class Mamba3Scan : public testing::Test {
 protected:
  ThreadPool pool_{2};
};

// Traps B2, B12 (any size and group count), C5 (both forms of A), C6 (both pairings).
TEST_F(Mamba3Scan, TrapsB2_B12_C5_C6_EverySetMatchesTheReference) {
  for (const Sizes& n : kSizes) {
    Problem problem(n, 12, 1);
    const State start = problem.random_state();
    const Exact want = exact(problem, start);
    for (const KernelSet* set : cpu_kernel_sets()) {
      SCOPED_TRACE(n.str() + " " + set->name);
      State s = start;
      expect_within("out", problem.run(*set, pool_, s), want.out);
      expect_within("S", s.S, want.S);
      expect_within("k", s.k, want.k);
      expect_phases(s, want);
      EXPECT_TRUE(std::equal(s.x.begin(), s.x.end(), problem.params(problem.T - 1).x));
    }
  }
}

// The two forms of A and the two pairings are not the same function.
TEST_F(Mamba3Scan, TrapsC5_C6_FormsDiffer) {
  Problem problem({2, 8, 16, 1, 1, 8}, 4, 2);
  const State start = problem.random_state();
  State a = start, b = start, c = start;
  const Floats heavy = problem.run(cpu_kernels(), pool_, a);
  problem.n.softplus_A = true;
  EXPECT_NE(heavy, problem.run(cpu_kernels(), pool_, b));
  problem.n.softplus_A = false;
  problem.n.pairing = kHalves;
  EXPECT_NE(heavy, problem.run(cpu_kernels(), pool_, c));
}

// Traps A12 (one token alone, also as a tail) and A4 (steps = one pass): bits, at every split.
TEST_F(Mamba3Scan, TrapA12_EverySplitGivesTheSameBits) {
  ThreadPool one(1), three(3);
  for (const Sizes& n : kSizes) {
    Problem problem(n, 9, 3);
    const State start = problem.random_state();
    for (const KernelSet* set : cpu_kernel_sets()) {
      SCOPED_TRACE(n.str() + " " + set->name);
      State whole = start, steps = start;
      const Floats want = problem.run(*set, pool_, whole);
      Floats got;
      const auto append = [&](const Floats& part) { got.insert(got.end(), part.begin(), part.end()); };
      for (int64_t t = 0; t < problem.T; ++t) append(problem.run(*set, one, steps, t, 1));
      EXPECT_TRUE(same_bits(got, want) && steps == whole);
      for (int64_t split = 0; split <= problem.T; ++split) {
        State s = start;
        got.clear();
        append(problem.run(*set, three, s, 0, split));
        append(problem.run(*set, one, s, split, problem.T - split));
        EXPECT_TRUE(same_bits(got, want) && s == whole) << "split at " << split;
      }
    }
  }
}

// Trap A7: packed sequences, of lengths 0, 1 and beyond one window of the kernel, in scattered slots.
TEST_F(Mamba3Scan, TrapA7_PackedSequencesAreSeparate) {
  constexpr int64_t kLengths[] = {3, 0, 1, 300, 0, 2, 255, 1, 0};
  constexpr int32_t kSlots[] = {5, 0, 9, 2, 3, 8, 1, 4, 7};
  constexpr int64_t kCount = 9, kSlotCount = 10, kGap = 3;
  for (const Sizes& n : {Sizes{4, 16, 16, 2, 1, 4}, Sizes{2, 12, 10, 1, 4, 3, kHalves, true}}) {
    Problem problem(n, 562, 4);
    for (const KernelSet* set : cpu_kernel_sets()) {
      SCOPED_TRACE(n.str() + " " + set->name);
      SeqSpans spans;
      for (int64_t i = 0; i < kCount; ++i) spans.add(kLengths[i], kSlots[i]);
      ASSERT_EQ(spans.n_tokens(), problem.T);
      std::vector<State> start, want;
      for (int64_t i = 0; i < kSlotCount; ++i) start.push_back(problem.random_state());
      want = start;
      Floats want_out;
      for (int64_t i = 0; i < kCount; ++i) {
        const Floats part = problem.run(*set, pool_, want[static_cast<size_t>(kSlots[i])],
                                        spans.offset[static_cast<size_t>(i)], kLengths[i]);
        want_out.insert(want_out.end(), part.begin(), part.end());
      }
      // All slots in one allocation a tensor, with gaps between the slots.
      State all;
      const auto gather = [](auto& to, const auto& from) {
        to.insert(to.end(), from.begin(), from.end());
        to.resize(to.size() + kGap, 77);
      };
      for (const State& s : start) {
        gather(all.phase, s.phase);
        gather(all.S, s.S);
        gather(all.k, s.k);
        gather(all.x, s.x);
      }
      State expected;
      for (const State& s : want) {
        gather(expected.phase, s.phase);
        gather(expected.S, s.S);
        gather(expected.k, s.k);
        gather(expected.x, s.x);
      }
      const auto stride = [](const auto& v) { return static_cast<int64_t>(v.size()) / kSlotCount; };
      Floats out(want_out.size());
      Mamba3ScanParams p = problem.params();
      p.spans = {spans.offset.data(), spans.slot.data(), kCount};
      p.out = out.data();
      p.ldo = n.H * n.P;
      p.phase = all.phase.data();
      p.phase_stride = stride(all.phase);
      p.S = all.S.data();
      p.S_stride = stride(all.S);
      p.k = all.k.data();
      p.k_stride = stride(all.k);
      p.x_prev = all.x.data();
      p.x_prev_stride = stride(all.x);
      set->mamba3_scan({&pool_}, p);
      EXPECT_TRUE(same_bits(out, want_out));
      EXPECT_TRUE(all == expected);
    }
  }
}

// Trap A13: a million steps with large angle rates, against a sum in double reduced at every step. The kernels' sum is
// exact, so that what differs is the steps' own rounding: at most 12 units (dt 5, tanh 5, two products) of at most 1.5
// turns each, which as independent errors stay below 7·sqrt(10^6) times that.
TEST_F(Mamba3Scan, TrapA13_AMillionStepsKeepTheAngle) {
  constexpr int64_t kRows = 1000, kRounds = 1000;
  const auto sets = cpu_kernel_sets();
  Problem problem({1, 1, 4, 1, 1, 2}, kRows, 6);
  problem.dt_bias = {0.0f};  // else the sum with its last bits errs the same way every time
  std::vector<State> states(sets.size(), problem.zero_state());
  const Mamba3ScanParams p = problem.params();
  const int64_t dt_at = p.dd_dt - problem.rows.data(), angle_at = p.angle - problem.rows.data();
  double want[2] = {0, 0}, travelled = 0;
  Rng rng(11);
  for (int64_t round = 0; round < kRounds; ++round) {
    for (int64_t t = 0; t < kRows; ++t) {
      float* row = problem.rows.data() + t * problem.n.row();
      row[dt_at] = static_cast<float>(rng.uniform(1, 3));
      row[angle_at] = static_cast<float>(rng.uniform(1, 4));
      row[angle_at + 1] = static_cast<float>(rng.uniform(-2, 3));
      const double dt = reference::mamba3_gates<double>(p, t, 0).dt;
      for (int f = 0; f < 2; ++f) {
        const double step = std::tanh(static_cast<double>(row[angle_at + f])) / 2 * dt;
        travelled += step;
        want[f] = std::remainder(want[f] + step, 1.0);
      }
    }
    for (size_t i = 0; i < sets.size(); ++i) problem.run(*sets[i], pool_, states[i]);
  }
  EXPECT_GT(travelled, 1e6);  // turns
  for (size_t i = 0; i < sets.size(); ++i) {
    for (size_t f = 0; f < 2; ++f) {
      const double got = static_cast<double>(states[i].phase[f]) * 0x1p-32;
      EXPECT_LE(std::abs(std::remainder(got - want[f], 1.0)), 7e3 * 12 * 1.5 * tolerance::kF32Unit) << sets[i]->name;
    }
  }
}

// Heads whose dt or decay is extreme stay finite.
TEST_F(Mamba3Scan, ExtremeGatesStayFinite) {
  const Sizes n{4, 8, 8, 1, 1, 4};
  for (const KernelSet* set : cpu_kernel_sets()) {
    Problem problem(n, 6, 7);
    Mamba3ScanParams p = problem.params();
    float* const rows = problem.rows.data();
    for (int64_t t = 0; t < problem.T; ++t) {
      constexpr float kExtreme[] = {-200.0f, 100.0f, 1e4f, -1e4f};
      for (int64_t h = 0; h < n.H; ++h) {
        rows[p.dd_dt - rows + t * p.ld + h] = kExtreme[h] / 100;
        rows[p.dd_A - rows + t * p.ld + h] = kExtreme[3 - h];
        rows[p.trap - rows + t * p.ld + h] = kExtreme[(h + 1) % 4];
      }
    }
    State s = problem.random_state();
    const Floats out = problem.run(*set, pool_, s);
    for (const Floats& v : {out, s.S, s.k}) {
      for (float f : v) ASSERT_TRUE(std::isfinite(f)) << set->name;
    }
  }
}

}  // namespace
}  // namespace krait
