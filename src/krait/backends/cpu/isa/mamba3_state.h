// The inner loop of the Mamba-3 scan: decays a head's state tile, adds both rank-R updates and reads it, in one pass.
#pragma once
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {

struct Mamba3Step {
  int64_t N, P, R;
  int64_t ldk, ldx;  // row strides, multiples of 16
  float alpha;
  float* S;                     // [N, P]
  const float *k_prev, *k, *q;  // [R, ldk]
  const float *before, *now;    // [R, ldx] β·X_prev and γ·X, zero past P
  float* y;                     // [R, ldx], all of it written
};

// Columns p0 … of S, NV vectors of them, the last cut to `lanes`; ranks r0 … r0 + R − 1:
//   S[n,p] = alpha·S[n,p] + Σ_r (before^r[p]·k_prev^r[n] + now^r[p]·k^r[n]);   y^r[p] = Σ_n S[n,p]·q^r[n]
// A sum's terms come in ascending r and n, whatever the width.
template <int R, int NV, class Lanes>
KRAIT_INLINE void state_columns(const Mamba3Step& m, float alpha, int64_t r0, int64_t p0, Lanes lanes) {
  Vec before[R][NV], now[R][NV], y[R][NV];
  KRAIT_UNROLL for (int r = 0; r < R; ++r) {
    KRAIT_UNROLL for (int v = 0; v < NV; ++v) {
      before[r][v] = load(m.before + (r0 + r) * m.ldx + p0 + v * kLanes);
      now[r][v] = load(m.now + (r0 + r) * m.ldx + p0 + v * kLanes);
      y[r][v] = zero();
    }
  }
  // Locals, because a store of a vector may alias the members of m as far as the compiler knows.
  const int64_t N = m.N, P = m.P, ldk = m.ldk;
  const float *k_prev = m.k_prev + r0 * ldk, *k = m.k + r0 * ldk, *q = m.q + r0 * ldk;
  const Vec decay = set1(alpha);
  float* S = m.S + p0;
  for (int64_t n = 0; n < N; ++n, S += P, ++k_prev, ++k, ++q) {
    Vec s[NV];
    KRAIT_UNROLL for (int v = 0; v < NV; ++v) s[v] = mul(load(S + v * kLanes, lanes), decay);
    KRAIT_UNROLL for (int r = 0; r < R; ++r) {
      const Vec a = broadcast(k_prev + r * ldk), b = broadcast(k + r * ldk);
      KRAIT_UNROLL for (int v = 0; v < NV; ++v) s[v] = fma(now[r][v], b, fma(before[r][v], a, s[v]));
    }
    KRAIT_UNROLL for (int v = 0; v < NV; ++v) store(S + v * kLanes, s[v], lanes);
    KRAIT_UNROLL for (int r = 0; r < R; ++r) {
      const Vec c = broadcast(q + r * ldk);
      KRAIT_UNROLL for (int v = 0; v < NV; ++v) y[r][v] = fma(s[v], c, y[r][v]);
    }
  }
  KRAIT_UNROLL for (int r = 0; r < R; ++r) {
    KRAIT_UNROLL for (int v = 0; v < NV; ++v) store(m.y + (r0 + r) * m.ldx + p0 + v * kLanes, y[r][v]);
  }
}

template <int R, int NV>
void state_ranks(const Mamba3Step& m, float alpha, int64_t r0) {
  int64_t p = 0;
  for (; p + NV * kLanes <= m.P; p += NV * kLanes) state_columns<R, NV>(m, alpha, r0, p, Whole{});
  for (; p + kLanes <= m.P; p += kLanes) state_columns<R, 1>(m, alpha, r0, p, Whole{});
  if (p < m.P) state_columns<R, 1>(m, alpha, r0, p, first_lanes(m.P - p));
}

// y^r[p] = Σ_n S[n,p]·q^r[n]
KRAIT_INLINE void read_state(const Mamba3Step& m, int64_t r) {
  const float* q = m.q + r * m.ldk;
  for_vectors(m.P, [&](int64_t p, auto lanes) {
    Vec y = zero();
    for (int64_t n = 0; n < m.N; ++n) y = fma(load(m.S + n * m.P + p, lanes), broadcast(q + n), y);
    store(m.y + r * m.ldx + p, y);
  });
}

// The ranks of the published models in one pass; others one update a rank, and then one reading a rank.
KRAIT_INLINE void update_and_read(const Mamba3Step& m) {
  // Vectors of columns at a time: what the registers hold, but at least two, so that two sums over r are in flight.
#ifdef __AVX512F__
  constexpr int kWide = 4, kMiddle = 4, kNarrow = 2;
#else
  constexpr int kWide = 4, kMiddle = 2, kNarrow = 2;
#endif
  if (m.R == 1) {
    state_ranks<1, kWide>(m, m.alpha, 0);
  } else if (m.R == 2) {
    state_ranks<2, kMiddle>(m, m.alpha, 0);
  } else if (m.R == 4) {
    state_ranks<4, kNarrow>(m, m.alpha, 0);
  } else {
    for (int64_t r = 0; r < m.R; ++r) state_ranks<1, kWide>(m, r == 0 ? m.alpha : 1.0f, r);
    for (int64_t r = 0; r < m.R; ++r) read_state(m, r);
  }
}

}  // namespace krait::KRAIT_ISA
