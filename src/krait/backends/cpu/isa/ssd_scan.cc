// State space dual scan of Mamba-2: tasks of (sequence, head, block of channels), vectors over channels. Tokens go in
// pieces: what depends on the token alone is computed for a whole piece, then tiles of the state walk the piece in
// registers, in ascending n.
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/tasks.h"
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {
namespace {

// A tile is kTileN n's times kVecs vectors: what the registers hold.
#ifdef __AVX512F__
constexpr int kVecs = 4;
#else
constexpr int kVecs = 2;
#endif
constexpr int kTileN = 4;
constexpr int kBlock = kVecs * kLanes;
constexpr int64_t kPiece = 32;  // tokens of a piece, so that its buffers stay in L1

struct Buffers {
  alignas(64) float dt[kPiece], decay[kPiece];
  alignas(64) float input[kPiece][kBlock];  // dt·x
  alignas(64) float y[kPiece][kBlock];
};

// dt after bias, softplus and limits, and exp(dt·A), of head h: vectors over tokens.
void time_steps(const SsdScanParams& p, int64_t h, int64_t t0, int64_t n, Buffers& b) {
  const float bias = p.dt_bias != nullptr ? p.dt_bias[h] : 0.0f;
  const Vec lowest = set1(p.dt_min), highest = set1(p.dt_max), A = set1(p.A[h]);
  for (int64_t i = 0; i < n; ++i) b.dt[i] = p.dt[(t0 + i) * p.lddt + h] + bias;
  for_vectors(n, [&](int64_t i, auto lanes) {
    const Vec dt = min(highest, max(lowest, softplus(load(b.dt + i, lanes))));
    store(b.dt + i, dt, lanes);
    store(b.decay + i, exp(mul(dt, A)), lanes);
  });
}

// Channels c .. of head h: kV vectors, of which the last may be partial.
template <int kV, class Last>
struct Block {
  const SsdScanParams& p;
  int64_t h, c;
  Last last;

  // f(v, offset in the block, lanes) for each vector.
  template <class F>
  KRAIT_INLINE void each(Last last, F f) {
    KRAIT_UNROLL for (int v = 0; v < kV - 1; ++v) f(v, v * kLanes, Whole{});
    f(kV - 1, (kV - 1) * kLanes, last);
  }

  void begin(int64_t t0, int64_t n, Buffers& b) const {
    for (int64_t i = 0; i < n; ++i) {
      const float* x = p.x + (t0 + i) * p.ldx + h * p.P + c;
      const Vec dt = set1(b.dt[i]);
      each(last, [&](int, int o, auto lanes) {
        store(b.input[i] + o, mul(dt, load(x + o, lanes)));
        store(b.y[i] + o, zero());
      });
    }
  }

  // kRows consecutive n's walk the piece. B and C point to the first n of token t0, S to its row of the block.
  template <int kRows>
  KRAIT_INLINE void walk(const Block& self, int64_t n, const float* B, const float* C, float* S_rows, Buffers& b) {
    const SsdScanParams& p = self.p;
    Vec S[kRows][kV];
    KRAIT_UNROLL for (int r = 0; r < kRows; ++r) {
      each(self.last, [&](int v, int o, auto lanes) { S[r][v] = load(S_rows + r * p.P + o, lanes); });
    }
    for (int64_t i = 0; i < n; ++i, B += p.ldb, C += p.ldc) {
      const Vec decay = broadcast(b.decay + i);
      Vec y[kV], input[kV];
      KRAIT_UNROLL for (int v = 0; v < kV; ++v) {
        y[v] = load(b.y[i] + v * kLanes);
        input[v] = load(b.input[i] + v * kLanes);
      }
      KRAIT_UNROLL for (int r = 0; r < kRows; ++r) {
        const Vec Bn = broadcast(B + r), Cn = broadcast(C + r);
        KRAIT_UNROLL for (int v = 0; v < kV; ++v) {
          S[r][v] = fma(input[v], Bn, mul(decay, S[r][v]));
          y[v] = fma(Cn, S[r][v], y[v]);
        }
      }
      KRAIT_UNROLL for (int v = 0; v < kV; ++v) store(b.y[i] + v * kLanes, y[v]);
    }
    KRAIT_UNROLL for (int r = 0; r < kRows; ++r) {
      each(self.last, [&](int v, int o, auto lanes) { store(S_rows + r * p.P + o, S[r][v], lanes); });
    }
  }

  void end(int64_t t0, int64_t n, const Buffers& b) const {
    const int64_t e = h * p.P + c;
    for (int64_t i = 0; i < n; ++i) {
      const float* x = p.x + (t0 + i) * p.ldx + e;
      float* out = p.y + (t0 + i) * p.ldy + e;
      each(last, [&](int, int o, auto lanes) {
        Vec y = load(b.y[i] + o);
        if (p.D != nullptr) {
          const Vec D = p.D_per_channel ? load(p.D + e + o, lanes) : set1(p.D[h]);
          y = fma(D, load(x + o, lanes), y);
        }
        store(out + o, y, lanes);
      });
    }
  }

  void run(int64_t t0, int64_t n, float* head_state, Buffers& b) const {
    const int64_t g = h / (p.H / p.G);
    const float* B = p.B + t0 * p.ldb + g * p.N;
    const float* C = p.C + t0 * p.ldc + g * p.N;
    float* S = head_state + c;
    begin(t0, n, b);
    int64_t i = 0;
    for (; i + kTileN <= p.N; i += kTileN) walk<kTileN>(*this, n, B + i, C + i, S + i * p.P, b);
    for (; i < p.N; ++i) walk<1>(*this, n, B + i, C + i, S + i * p.P, b);
    end(t0, n, b);
  }
};

void run_block(const SsdScanParams& p, int64_t s, int64_t h, int64_t c0, Buffers& b) {
  const int64_t c1 = p.P - c0 < kBlock ? p.P : c0 + kBlock;
  float* S = p.state + p.spans.slot[s] * p.state_stride + h * p.N * p.P;
  const int64_t stop = p.spans.offset[s + 1];
  for (int64_t t0 = p.spans.offset[s]; t0 < stop; t0 += kPiece) {
    const int64_t n = stop - t0 < kPiece ? stop - t0 : kPiece;
    time_steps(p, h, t0, n, b);
    if (c1 - c0 == kBlock) {
      Block<kVecs, Whole>{p, h, c0, {}}.run(t0, n, S, b);
      continue;
    }
    int64_t c = c0;
    for (; c + kLanes <= c1; c += kLanes) Block<1, Whole>{p, h, c, {}}.run(t0, n, S, b);
    if (c < c1) Block<1, Part>{p, h, c, first_lanes(c1 - c)}.run(t0, n, S, b);
  }
}

}  // namespace

void ssd_scan(const Exec& exec, const SsdScanParams& p) {
  const int64_t seqs = p.spans.n_seqs, blocks = (p.P + kBlock - 1) / kBlock;
  if (seqs == 0) return;
  const int64_t cost = p.spans.n_tokens() / seqs * kVecs * 4 * p.N;
  parallel_items(exec, seqs * p.H * blocks, cost, [&](int64_t i) {
    Buffers b;
    run_block(p, i / blocks / p.H, i / blocks % p.H, i % blocks * kBlock, b);
  });
}

}  // namespace krait::KRAIT_ISA
