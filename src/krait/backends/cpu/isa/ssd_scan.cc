// State space dual scan of Mamba-2: tasks of (sequence, head, block of channels), vectors over channels. Tokens go in
// pieces: what depends on the token alone is computed for a whole piece, then tiles of the state walk the piece in
// registers, in ascending n. A piece of one token reads and writes the state as a stream instead. Both do the same
// operations on an element in the same order.
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/tasks.h"
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {
namespace {

// A tile is kTileN n's times kVecs vectors: what the registers hold.
#ifdef __AVX512F__
constexpr int kVecs = 4, kTileN = 4;
#else
constexpr int kVecs = 2, kTileN = 3;
#endif
constexpr int64_t kBlock = 64;  // channels of a task
constexpr int64_t kPiece = 32;  // tokens of a piece, so that its buffers stay in L1

struct Buffers {
  alignas(64) float dt[kPiece], decay[kPiece];
  alignas(64) float input[kPiece][kBlock];  // dt·x
  alignas(64) float y[kPiece][kBlock];
};

// The channels [e, e + width) of head h of one sequence, for the n tokens from t0 on. S is the first of their states.
struct Piece {
  const SsdScanParams& p;
  int64_t h, e, width;
  int64_t t0, n;
  float* S;
  Buffers& b;
};

// dt after bias, softplus and limits, and exp(dt·A): vectors over tokens.
[[gnu::flatten]] void time_steps(const Piece& k) {
  const SsdScanParams& p = k.p;
  const float bias = p.dt_bias != nullptr ? p.dt_bias[k.h] : 0.0f;
  const Vec lowest = set1(p.dt_min), highest = set1(p.dt_max), A = set1(p.A[k.h]);
  for (int64_t i = 0; i < k.n; ++i) k.b.dt[i] = p.dt[(k.t0 + i) * p.lddt + k.h] + bias;
  for_vectors(k.n, [&](int64_t i, auto lanes) {
    const Vec dt = min(highest, max(lowest, softplus(load(k.b.dt + i, lanes))));
    store(k.b.dt + i, dt, lanes);
    store(k.b.decay + i, exp(mul(dt, A)), lanes);
  });
}

[[gnu::flatten]] void begin(const Piece& k) {
  for (int64_t i = 0; i < k.n; ++i) {
    const float* x = k.p.x + (k.t0 + i) * k.p.ldx + k.e;
    const Vec dt = set1(k.b.dt[i]);
    for_vectors(k.width, [&](int64_t c, auto lanes) {
      store(k.b.input[i] + c, mul(dt, load(x + c, lanes)));
      store(k.b.y[i] + c, zero());
    });
  }
}

[[gnu::flatten]] void end(const Piece& k) {
  const float* D = k.p.D == nullptr ? nullptr : k.p.D_per_channel ? k.p.D + k.e : k.p.D + k.h;
  for (int64_t i = 0; i < k.n; ++i) {
    const float* x = k.p.x + (k.t0 + i) * k.p.ldx + k.e;
    float* out = k.p.y + (k.t0 + i) * k.p.ldy + k.e;
    for_vectors(k.width, [&](int64_t c, auto lanes) {
      Vec y = load(k.b.y[i] + c);
      if (D != nullptr) y = fma(k.p.D_per_channel ? load(D + c, lanes) : broadcast(D), load(x + c, lanes), y);
      store(out + c, y, lanes);
    });
  }
}

// f(v, offset, lanes) for kV vectors, of which the last may be partial.
template <int kV, class Last, class F>
KRAIT_INLINE void each(Last last, F f) {
  KRAIT_UNROLL for (int v = 0; v < kV - 1; ++v) f(v, v * kLanes, Whole{});
  f(kV - 1, (kV - 1) * kLanes, last);
}

// kRows consecutive n's of the channels from c on walk the piece. B and C: of token t0 and the first n.
template <int kRows, int kV, class Last>
[[gnu::flatten]] void walk(const Piece& k, const float* B, const float* C, float* S_rows, int64_t c, Last last) {
  const int64_t n = k.n, ldb = k.p.ldb, ldc = k.p.ldc, P = k.p.P;
  const float* decays = k.b.decay;
  const float* inputs = k.b.input[0] + c;
  float* sums = k.b.y[0] + c;
  Vec S[kRows][kV];
  KRAIT_UNROLL for (int r = 0; r < kRows; ++r) {
    each<kV>(last, [&](int v, int o, auto lanes) { S[r][v] = load(S_rows + r * P + o, lanes); });
  }
  for (int64_t i = 0; i < n; ++i, B += ldb, C += ldc, inputs += kBlock, sums += kBlock) {
    const Vec decay = broadcast(decays + i);
    Vec y[kV];
    KRAIT_UNROLL for (int v = 0; v < kV; ++v) y[v] = load(sums + v * kLanes);
    KRAIT_UNROLL for (int r = 0; r < kRows; ++r) {
      const Vec Bn = broadcast(B + r), Cn = broadcast(C + r);
      KRAIT_UNROLL for (int v = 0; v < kV; ++v) {
        S[r][v] = fma(load(inputs + v * kLanes), Bn, mul(decay, S[r][v]));
        y[v] = fma(Cn, S[r][v], y[v]);
      }
    }
    KRAIT_UNROLL for (int v = 0; v < kV; ++v) store(sums + v * kLanes, y[v]);
  }
  KRAIT_UNROLL for (int r = 0; r < kRows; ++r) {
    each<kV>(last, [&](int v, int o, auto lanes) { store(S_rows + r * P + o, S[r][v], lanes); });
  }
}

template <int kV, class Last>
void walk_all(const Piece& k, const float* B, const float* C, int64_t c, Last last) {
  int64_t i = 0;
  for (; i + kTileN <= k.p.N; i += kTileN) walk<kTileN, kV>(k, B + i, C + i, k.S + i * k.p.P + c, c, last);
  for (; i < k.p.N; ++i) walk<1, kV>(k, B + i, C + i, k.S + i * k.p.P + c, c, last);
}

// The only token of the piece.
template <int kV, class Last>
[[gnu::flatten]] void stream(const Piece& k, const float* B, const float* C, int64_t c, Last last) {
  const int64_t N = k.p.N, P = k.p.P;
  const Vec decay = broadcast(k.b.decay);
  const float* input = k.b.input[0] + c;
  float* S = k.S + c;
  Vec y[kV];
  KRAIT_UNROLL for (int v = 0; v < kV; ++v) y[v] = zero();
  for (int64_t i = 0; i < N; ++i, S += P) {
    const Vec Bn = broadcast(B + i), Cn = broadcast(C + i);
    each<kV>(last, [&](int v, int o, auto lanes) {
      const Vec s = fma(load(input + o), Bn, mul(decay, load(S + o, lanes)));
      y[v] = fma(Cn, s, y[v]);
      store(S + o, s, lanes);
    });
  }
  KRAIT_UNROLL for (int v = 0; v < kV; ++v) store(k.b.y[0] + c + v * kLanes, y[v]);
}

void run_piece(const Piece& k) {
  const int64_t g = k.h / (k.p.H / k.p.G);
  const float* B = k.p.B + k.t0 * k.p.ldb + g * k.p.N;
  const float* C = k.p.C + k.t0 * k.p.ldc + g * k.p.N;
  constexpr int kAll = kBlock / kLanes;
  int64_t c = 0;
  time_steps(k);
  begin(k);
  if (k.n == 1) {
    if (k.width == kBlock) {
      stream<kAll>(k, B, C, 0, Whole{});
    } else {
      for_vectors(k.width, [&](int64_t o, auto lanes) { stream<1>(k, B, C, o, lanes); });
    }
  } else {
    for (; c + kVecs * kLanes <= k.width; c += kVecs * kLanes) walk_all<kVecs>(k, B, C, c, Whole{});
    for_vectors(k.width - c, [&](int64_t o, auto lanes) { walk_all<1>(k, B, C, c + o, lanes); });
  }
  end(k);
}

}  // namespace

void ssd_scan(const Exec& exec, const SsdScanParams& p) {
  const int64_t seqs = p.spans.n_seqs, blocks = (p.P + kBlock - 1) / kBlock;
  if (seqs == 0) return;
  const int64_t cost = p.spans.n_tokens() / seqs * (kBlock / kLanes) * 4 * p.N;
  parallel_items(exec, seqs * p.H * blocks, cost, [&](int64_t i) {
    const int64_t s = i / blocks / p.H, h = i / blocks % p.H, c = i % blocks * kBlock;
    const int64_t width = p.P - c < kBlock ? p.P - c : kBlock, stop = p.spans.offset[s + 1];
    float* S = p.state + p.spans.slot[s] * p.state_stride + h * p.N * p.P + c;
    Buffers b;
    for (int64_t t = p.spans.offset[s]; t < stop; t += kPiece) {
      run_piece({p, h, h * p.P + c, width, t, stop - t < kPiece ? stop - t : kPiece, S, b});
    }
  });
}

}  // namespace krait::KRAIT_ISA
