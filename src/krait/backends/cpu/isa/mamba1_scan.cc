// Selective scan of Mamba-1: tasks of (sequence, block of channels), vectors over channels. Tokens go in pieces: what
// depends on the token alone is computed for a whole piece, then every n walks the piece with its states in registers.
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/tasks.h"
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {
namespace {

// Vectors of a block: what the registers hold beside the constants and temporaries of 2^x.
#ifdef __AVX512F__
constexpr int kVecs = 4;
#else
constexpr int kVecs = 2;
#endif
constexpr int kBlock = kVecs * kLanes;
constexpr int64_t kPiece = 16;  // tokens of a piece, so that its buffers stay in L1

struct Buffers {
  alignas(64) float log_decay[kPiece][kBlock];  // dt·log2(e): the decay is 2^(A·log_decay)
  alignas(64) float input[kPiece][kBlock];      // dt·x
  alignas(64) float y[kPiece][kBlock];
};

// Channels e .. of one sequence: kV vectors, of which the last may be partial.
template <int kV, class Last>
struct Block {
  const Mamba1ScanParams& p;
  int64_t e;
  Last last;

  // f(v, offset in the block, lanes) for each vector.
  template <class F>
  KRAIT_INLINE void each(Last last, F f) {
    KRAIT_UNROLL for (int v = 0; v < kV - 1; ++v) f(v, v * kLanes, Whole{});
    f(kV - 1, (kV - 1) * kLanes, last);
  }

  void begin(int64_t t0, int64_t n, Buffers& b) const {
    for (int64_t i = 0; i < n; ++i) {
      const float* dt_row = p.dt + (t0 + i) * p.lddt + e;
      const float* x_row = p.x + (t0 + i) * p.ldx + e;
      each(last, [&](int, int c, auto lanes) {
        Vec dt = load(dt_row + c, lanes);
        if (p.dt_bias != nullptr) dt = add(dt, load(p.dt_bias + e + c, lanes));
        if (p.softplus) dt = softplus(dt);
        store(b.log_decay[i] + c, mul(dt, set1(1.44269504f)));
        store(b.input[i] + c, mul(dt, load(x_row + c, lanes)));
        store(b.y[i] + c, zero());
      });
    }
  }

  // One n: h [block] walks the piece.
  void step(int64_t t0, int64_t n, const float* A_row, const float* B, const float* C, float* h_row, Buffers& b) const {
    Vec A[kV], h[kV];
    each(last, [&](int v, int c, auto lanes) {
      A[v] = load(A_row + c, lanes);
      h[v] = load(h_row + c, lanes);
    });
    for (int64_t i = 0; i < n; ++i) {
      const Vec Bn = broadcast(B + (t0 + i) * p.ldb), Cn = broadcast(C + (t0 + i) * p.ldc);
      KRAIT_UNROLL for (int v = 0; v < kV; ++v) {
        const int c = v * kLanes;
        const Vec decay = exp2(mul(A[v], load(b.log_decay[i] + c)));
        h[v] = fma(decay, h[v], mul(Bn, load(b.input[i] + c)));
        store(b.y[i] + c, fma(Cn, h[v], load(b.y[i] + c)));
      }
    }
    each(last, [&](int v, int c, auto lanes) { store(h_row + c, h[v], lanes); });
  }

  void end(int64_t t0, int64_t n, const Buffers& b) const {
    for (int64_t i = 0; i < n; ++i) {
      const float* x_row = p.x + (t0 + i) * p.ldx + e;
      const float* z_row = p.z != nullptr ? p.z + (t0 + i) * p.ldz + e : nullptr;
      float* y_row = p.y + (t0 + i) * p.ldy + e;
      each(last, [&](int, int c, auto lanes) {
        Vec y = load(b.y[i] + c);
        if (p.D != nullptr) y = fma(load(p.D + e + c, lanes), load(x_row + c, lanes), y);
        if (z_row != nullptr) y = mul(y, silu(load(z_row + c, lanes)));
        store(y_row + c, y, lanes);
      });
    }
  }

  void run(int64_t s, Buffers& b) const {
    float* h = p.state + p.spans.slot[s] * p.state_stride + e;
    const int64_t stop = p.spans.offset[s + 1];
    for (int64_t t0 = p.spans.offset[s]; t0 < stop; t0 += kPiece) {
      const int64_t n = stop - t0 < kPiece ? stop - t0 : kPiece;
      begin(t0, n, b);
      for (int64_t i = 0; i < p.N; ++i) step(t0, n, p.A + i * p.E + e, p.B + i, p.C + i, h + i * p.E, b);
      end(t0, n, b);
    }
  }
};

void run_block(const Mamba1ScanParams& p, int64_t s, int64_t e, Buffers& b) {
  const int64_t stop = p.E - e < kBlock ? p.E : e + kBlock;
  if (stop - e == kBlock) return Block<kVecs, Whole>{p, e, {}}.run(s, b);
  for (; e + kLanes <= stop; e += kLanes) Block<1, Whole>{p, e, {}}.run(s, b);
  if (e < stop) Block<1, Part>{p, e, first_lanes(stop - e)}.run(s, b);
}

}  // namespace

void mamba1_scan(const Exec& exec, const Mamba1ScanParams& p) {
  const int64_t seqs = p.spans.n_seqs, blocks = (p.E + kBlock - 1) / kBlock;
  if (seqs == 0) return;
  const int64_t cost = p.spans.n_tokens() / seqs * kVecs * (16 * p.N + 60);
  parallel_items(exec, seqs * blocks, cost, [&](int64_t i) {
    Buffers b;
    run_block(p, i / blocks, i % blocks * kBlock, b);
  });
}

}  // namespace krait::KRAIT_ISA
