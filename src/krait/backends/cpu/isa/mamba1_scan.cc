// Selective scan of Mamba-1: tasks of (sequence, block of channels), vectors over channels. Tokens go in pieces: what
// depends on the token alone is computed for a whole piece, then every n walks the piece with its states in registers.
// A single token reads and writes the whole state for little arithmetic: wide blocks read it in long runs, and the rows
// that come next are asked for while one is worked on.
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/tasks.h"
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {
namespace {

// Vectors that walk together: what the registers hold beside the constants and temporaries of 2^x.
#ifdef __AVX512F__
constexpr int kVecs = 4;
#else
constexpr int kVecs = 2;
#endif
constexpr int64_t kWalk = kVecs * kLanes;  // channels of a walk
constexpr int64_t kMaxBlock = 768;         // channels of a task
constexpr int64_t kTile = 1536;            // tokens of a piece times channels: its buffers stay in L1
constexpr int64_t kMaxPiece = 16;
constexpr int64_t kRowsAhead = 4;     // rows of the state between the one worked on and the one asked for
constexpr int64_t kBlockMin = 12000;  // vector instructions of a task below which a further cut does not pay
constexpr int64_t kTasksPerThread = 4;

struct Buffers {                       // [tokens][block]
  alignas(64) float log_decay[kTile];  // dt·log2(e): the decay is 2^(A·log_decay)
  alignas(64) float input[kTile];      // dt·x
  alignas(64) float y[kTile];
};

// Channels [e, e + width) of one sequence, for the n tokens from t0 on. h is the first of their states.
struct Piece {
  const Mamba1ScanParams& p;
  int64_t block, e, width;  // width <= block
  int64_t t0, n;
  float* h;
  Buffers& b;
};

[[gnu::flatten]] void begin(const Piece& k) {
  const Mamba1ScanParams& p = k.p;
  const float* bias = p.dt_bias != nullptr ? p.dt_bias + k.e : nullptr;
  const bool plus = p.softplus;
  for (int64_t i = 0; i < k.n; ++i) {
    const float* raw = p.dt + (k.t0 + i) * p.lddt + k.e;
    const float* x = p.x + (k.t0 + i) * p.ldx + k.e;
    for_vectors(k.width, [&](int64_t c, auto lanes) {
      Vec dt = load(raw + c, lanes);
      if (bias != nullptr) dt = add(dt, load(bias + c, lanes));
      if (plus) dt = softplus(dt);
      store(k.b.log_decay + i * k.block + c, mul(dt, set1(1.44269504f)));
      store(k.b.input + i * k.block + c, mul(dt, load(x + c, lanes)));
      store(k.b.y + i * k.block + c, zero());
    });
  }
}

[[gnu::flatten]] void end(const Piece& k) {
  const Mamba1ScanParams& p = k.p;
  const float* D = p.D != nullptr ? p.D + k.e : nullptr;
  for (int64_t i = 0; i < k.n; ++i) {
    const float* x = p.x + (k.t0 + i) * p.ldx + k.e;
    const float* z = p.z != nullptr ? p.z + (k.t0 + i) * p.ldz + k.e : nullptr;
    float* out = p.y + (k.t0 + i) * p.ldy + k.e;
    for_vectors(k.width, [&](int64_t c, auto lanes) {
      Vec y = load(k.b.y + i * k.block + c);
      if (D != nullptr) y = fma(load(D + c, lanes), load(x + c, lanes), y);
      if (z != nullptr) y = mul(y, silu(load(z + c, lanes)));
      store(out + c, y, lanes);
    });
  }
}

// State `s` of kV vectors of channels, of which the last may be partial, from channel c of the block on.
template <int kV, class Last>
[[gnu::flatten]] void walk(const Piece& k, int64_t s, int64_t c, Last last) {
  const int64_t n = k.n, block = k.block, ldb = k.p.ldb, ldc = k.p.ldc;
  const float* B = k.p.B + k.t0 * ldb + s;
  const float* C = k.p.C + k.t0 * ldc + s;
  const float* A_row = k.p.A + s * k.p.E + k.e + c;
  float* h_row = k.h + s * k.p.E + c;
  const float* log_decay = k.b.log_decay + c;
  const float* input = k.b.input + c;
  float* sums = k.b.y + c;
  KRAIT_UNROLL for (int64_t at = 0; at < kV * kLanes; at += 16) {  // into L2: L1 has too few sets for rows 2^k apart
    __builtin_prefetch(A_row + kRowsAhead * k.p.E + at, 0, 2);
    __builtin_prefetch(h_row + kRowsAhead * k.p.E + at, 0, 2);
  }
  Vec A[kV], h[kV];
  KRAIT_UNROLL for (int v = 0; v < kV - 1; ++v) A[v] = load(A_row + v * kLanes), h[v] = load(h_row + v * kLanes);
  A[kV - 1] = load(A_row + (kV - 1) * kLanes, last);
  h[kV - 1] = load(h_row + (kV - 1) * kLanes, last);
  for (int64_t i = 0; i < n; ++i, B += ldb, C += ldc, log_decay += block, input += block, sums += block) {
    const Vec Bn = broadcast(B), Cn = broadcast(C);
    KRAIT_UNROLL for (int v = 0; v < kV; ++v) {
      const int o = v * kLanes;
      h[v] = fma(exp2(mul(A[v], load(log_decay + o))), h[v], mul(Bn, load(input + o)));
      store(sums + o, fma(Cn, h[v], load(sums + o)));
    }
  }
  KRAIT_UNROLL for (int v = 0; v < kV - 1; ++v) store(h_row + v * kLanes, h[v]);
  store(h_row + (kV - 1) * kLanes, h[kV - 1], last);
}

void run_piece(const Piece& k) {
  begin(k);
  for (int64_t s = 0; s < k.p.N; ++s) {
    int64_t c = 0;
    for (; c + kWalk <= k.width; c += kWalk) walk<kVecs>(k, s, c, Whole{});
    for_vectors(k.width - c, [&](int64_t o, auto lanes) { walk<1>(k, s, c + o, lanes); });
  }
  end(k);
}

// Channels of a block, for sequences of `cost` vector instructions: at most kMaxBlock, and so many blocks that threads
// can take turns, unless tasks would become too short.
int64_t block_width(int64_t E, int64_t seqs, int64_t threads, int64_t cost) {
  int64_t tasks = seqs * cost / kBlockMin;
  if (tasks > kTasksPerThread * threads) tasks = kTasksPerThread * threads;
  tasks -= tasks % threads;
  int64_t blocks = (tasks + seqs - 1) / seqs;
  if (blocks < (E + kMaxBlock - 1) / kMaxBlock) blocks = (E + kMaxBlock - 1) / kMaxBlock;
  return ((E + blocks - 1) / blocks + kWalk - 1) / kWalk * kWalk;
}

}  // namespace

void mamba1_scan(const Exec& exec, const Mamba1ScanParams& p) {
  const int64_t seqs = p.spans.n_seqs;
  if (seqs == 0) return;
  const int64_t cost = p.spans.n_tokens() / seqs * ((p.E + kLanes - 1) / kLanes) * (16 * p.N + 60);
  const int64_t block = block_width(p.E, seqs, exec.pool->n_threads(), cost), blocks = (p.E + block - 1) / block;
  const int64_t piece = kTile / block < kMaxPiece ? kTile / block : kMaxPiece;
  parallel_items(exec, seqs * blocks, cost / blocks, [&](int64_t i) {
    const int64_t s = i / blocks, e = i % blocks * block, stop = p.spans.offset[s + 1];
    const int64_t width = p.E - e < block ? p.E - e : block;
    float* h = p.state + p.spans.slot[s] * p.state_stride + e;
    Buffers b;
    for (int64_t t = p.spans.offset[s]; t < stop; t += piece) {
      run_piece({p, block, e, width, t, stop - t < piece ? stop - t : piece, h, b});
    }
  });
}

}  // namespace krait::KRAIT_ISA
