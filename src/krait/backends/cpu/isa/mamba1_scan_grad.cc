// Gradients of the selective scan (spec/mamba.md §2.4), vectors over channels. A task is a block of channels of one
// sequence: it walks forward and keeps the states at the starts of pieces, then back over the pieces. There, two n's at
// a time: their states and decays of the piece are computed again into a buffer in L1, then the gradient of the state
// walks back in registers.
#include <string.h>

#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/scan_grad.h"

namespace krait::KRAIT_ISA {
namespace {

constexpr int64_t kBlock = 128;  // channels of a task
constexpr int64_t kPiece = 16;   // tokens
// A tile that walks: kRows n's times kVecs vectors.
#ifdef __AVX512F__
constexpr int kVecs = 4, kRows = 2;
#else
constexpr int kVecs = 2, kRows = 1;
#endif
constexpr float kLn2 = 0.693147181f, kLog2e = 1.44269504f;

struct Task {
  const Mamba1ScanGradParams& p;
  int64_t e, width;          // channels e .. e + width − 1, width <= kBlock
  int64_t s, first, length;  // sequence and its tokens
  float* rows;               // [length][row]: dB [columns], dC [columns]
  float* sums;               // dA [N·E], dD [E], ddt_bias [E]
  int64_t columns;           // N in whole vectors
  int64_t pieces() const { return ceil_div(length, kPiece); }
};

// Channels beyond the block's width are zero everywhere.
using PerToken = float[kPiece][kBlock];
struct Buffers {
  alignas(64) PerToken log_decay, input;     // dt·log2(e), dt·x
  alignas(64) PerToken dt, slope, gate, dy;  // d dt / d raw, σ(z), gradient of y before the gate
  alignas(64) PerToken y, dinput, dstep;     // Σ_n C·h, gradient of dt·x, Σ_n A·(gradient of dt·A)
  alignas(64) float h[kPiece + 1][kRows][kVecs * kLanes], decay[kPiece][kRows][kVecs * kLanes];
  alignas(64) float dD[kBlock], ddt_bias[kBlock];
  float *states, *A, *g, *dA;  // [pieces][N][kBlock] at the starts of pieces; [N][kBlock]
};

// Tokens t .. t + n − 1.
struct Piece {
  const Task& k;
  Buffers& b;
  int64_t t, n;
};

struct Step {
  Vec dt, slope;  // slope: d dt / d raw
};

// softplus and its derivative, from one exponential; dt has the bits of softplus(raw).
KRAIT_INLINE Step step_of(Vec raw) {
  const Vec one = set1(1.0f), e = exp(sub(zero(), abs(raw)));
  return {add(max(zero(), raw), log1p_unit(e)), div(select_less(raw, zero(), e, one), add(one, e))};
}

// dt·log2(e) and dt·x of the piece; for the way back also dt and its slope.
template <bool kBack>
[[gnu::flatten]] void begin(const Piece& c) {
  const Mamba1ScanParams& f = c.k.p.f;
  const float* bias = f.dt_bias != nullptr ? f.dt_bias + c.k.e : nullptr;
  const bool plus = f.softplus;
  Buffers& b = c.b;
  for (int64_t i = 0; i < c.n; ++i) {
    const float *raw = f.dt + (c.t + i) * f.lddt + c.k.e, *x = f.x + (c.t + i) * f.ldx + c.k.e;
    for_vectors(c.k.width, [&](int64_t e, auto lanes) {
      Step step{load(raw + e, lanes), set1(1.0f)};
      if (bias != nullptr) step.dt = add(step.dt, load(bias + e, lanes));
      if (plus) step = step_of(step.dt);
      step.dt = keep(step.dt, lanes);
      store(b.log_decay[i] + e, mul(step.dt, set1(kLog2e)));
      store(b.input[i] + e, mul(step.dt, load(x + e, lanes)));
      if (kBack) store(b.dt[i] + e, step.dt), store(b.slope[i] + e, step.slope);
    });
  }
}

// The gate, the gradient of what it lets through, and sums over n that begin.
[[gnu::flatten]] void begin_back(const Piece& c) {
  const Mamba1ScanGradParams& p = c.k.p;
  Buffers& b = c.b;
  for (int64_t i = 0; i < c.n; ++i) {
    const float* dout = p.dy + (c.t + i) * p.lddy + c.k.e;
    const float* z = p.f.z != nullptr ? p.f.z + (c.t + i) * p.f.ldz + c.k.e : nullptr;
    for_vectors(c.k.width, [&](int64_t e, auto lanes) {
      Vec dy = load(dout + e, lanes);
      if (z != nullptr) {
        const Vec v = load(z + e, lanes), gate = sigmoid(v);
        store(b.gate[i] + e, gate);
        dy = mul(dy, mul(v, gate));
      }
      store(b.dy[i] + e, dy);
      store(b.y[i] + e, zero());
      store(b.dinput[i] + e, zero());
      store(b.dstep[i] + e, zero());
    });
  }
}

// State n of kVecs vectors from channel e on, over one piece.
[[gnu::flatten]] void forward(const Piece& c, int64_t n, int64_t e, const float* before, float* after) {
  const float* B = c.k.p.f.B + c.t * c.k.p.f.ldb + n;
  Vec A[kVecs], h[kVecs];
  KRAIT_UNROLL for (int v = 0; v < kVecs; ++v) {
    A[v] = load(c.b.A + n * kBlock + e + v * kLanes);
    h[v] = load(before + n * kBlock + e + v * kLanes);
  }
  for (int64_t i = 0; i < c.n; ++i, B += c.k.p.f.ldb) {
    const Vec Bn = broadcast(B);
    KRAIT_UNROLL for (int v = 0; v < kVecs; ++v) {
      const int64_t o = e + v * kLanes;
      h[v] = fma(exp2(mul(A[v], load(c.b.log_decay[i] + o))), h[v], mul(Bn, load(c.b.input[i] + o)));
    }
  }
  KRAIT_UNROLL for (int v = 0; v < kVecs; ++v) store(after + n * kBlock + e + v * kLanes, h[v]);
}

// kN states from n on, kVecs vectors from channel e on: into b.h and b.decay; y += C·h.
template <int kN>
[[gnu::flatten]] void again(const Piece& c, int64_t n, int64_t e, const float* before) {
  Buffers& b = c.b;
  const float *B = c.k.p.f.B + c.t * c.k.p.f.ldb + n, *C = c.k.p.f.C + c.t * c.k.p.f.ldc + n;
  Vec h[kN][kVecs];
  KRAIT_UNROLL for (int r = 0; r < kN; ++r) {
    KRAIT_UNROLL for (int v = 0; v < kVecs; ++v) {
      h[r][v] = load(before + (n + r) * kBlock + e + v * kLanes);
      store(b.h[0][r] + v * kLanes, h[r][v]);
    }
  }
  const float* A = b.A + n * kBlock + e;
  for (int64_t i = 0; i < c.n; ++i, B += c.k.p.f.ldb, C += c.k.p.f.ldc) {
    KRAIT_UNROLL for (int v = 0; v < kVecs; ++v) {
      const int64_t o = v * kLanes;
      const Vec log_decay = load(b.log_decay[i] + e + o), input = load(b.input[i] + e + o);
      Vec y = load(b.y[i] + e + o);
      KRAIT_UNROLL for (int r = 0; r < kN; ++r) {
        const Vec decay = exp2(mul(load(A + r * kBlock + o), log_decay));
        h[r][v] = fma(decay, h[r][v], mul(broadcast(B + r), input));
        y = fma(broadcast(C + r), h[r][v], y);
        store(b.decay[i][r] + o, decay);
        store(b.h[i + 1][r] + o, h[r][v]);
      }
      store(b.y[i] + e + o, y);
    }
  }
}

// The gradients of these states, back over the piece; what b.h and b.decay hold is theirs.
template <int kN>
[[gnu::flatten]] void back(const Piece& c, int64_t n, int64_t e, float* rows) {
  Buffers& b = c.b;
  const int64_t ldb = c.k.p.f.ldb, ldc = c.k.p.f.ldc, columns = c.k.columns;
  const float *B = c.k.p.f.B + c.t * ldb + n, *C = c.k.p.f.C + c.t * ldc + n, *A = b.A + n * kBlock + e;
  Vec g[kN][kVecs], dA[kN][kVecs];
  KRAIT_UNROLL for (int r = 0; r < kN; ++r) {
    KRAIT_UNROLL for (int v = 0; v < kVecs; ++v) {
      g[r][v] = load(b.g + (n + r) * kBlock + e + v * kLanes);
      dA[r][v] = load(b.dA + (n + r) * kBlock + e + v * kLanes);
    }
  }
  for (int64_t i = c.n - 1; i >= 0; --i) {
    Vec dB[kN], dC[kN];
    KRAIT_UNROLL for (int r = 0; r < kN; ++r) dB[r] = dC[r] = zero();
    KRAIT_UNROLL for (int v = 0; v < kVecs; ++v) {
      const int64_t o = v * kLanes;
      const Vec dy = load(b.dy[i] + e + o), input = load(b.input[i] + e + o), step = load(b.log_decay[i] + e + o);
      Vec dinput = load(b.dinput[i] + e + o), dstep = load(b.dstep[i] + e + o);
      KRAIT_UNROLL for (int r = 0; r < kN; ++r) {
        g[r][v] = fma(broadcast(C + i * ldc + r), dy, g[r][v]);
        dC[r] = fma(dy, load(b.h[i + 1][r] + o), dC[r]);
        dB[r] = fma(g[r][v], input, dB[r]);
        dinput = fma(g[r][v], broadcast(B + i * ldb + r), dinput);
        g[r][v] = mul(g[r][v], load(b.decay[i][r] + o));
        const Vec dexponent = mul(g[r][v], load(b.h[i][r] + o));
        dstep = fma(load(A + r * kBlock + o), dexponent, dstep);
        dA[r][v] = fma(step, dexponent, dA[r][v]);
      }
      store(b.dinput[i] + e + o, dinput);
      store(b.dstep[i] + e + o, dstep);
    }
    KRAIT_UNROLL for (int r = 0; r < kN; ++r) {
      rows[i * 2 * columns + n + r] += sum(dB[r]);
      rows[i * 2 * columns + columns + n + r] += sum(dC[r]);
    }
  }
  KRAIT_UNROLL for (int r = 0; r < kN; ++r) {
    KRAIT_UNROLL for (int v = 0; v < kVecs; ++v) {
      store(b.g + (n + r) * kBlock + e + v * kLanes, g[r][v]);
      store(b.dA + (n + r) * kBlock + e + v * kLanes, dA[r][v]);
    }
  }
}

// From the sums over n to the gradients of x, raw dt and z, and to those of D and the bias.
[[gnu::flatten]] void end_back(const Piece& c) {
  const Mamba1ScanGradParams& p = c.k.p;
  const Mamba1ScanParams& f = p.f;
  Buffers& b = c.b;
  const float* of_D = f.D != nullptr ? f.D + c.k.e : nullptr;
  for (int64_t i = c.n - 1; i >= 0; --i) {
    const int64_t t = c.t + i;
    const float *of_x = f.x + t * f.ldx + c.k.e, *z = f.z != nullptr ? f.z + t * f.ldz + c.k.e : nullptr;
    float *dx = p.dx + t * p.lddx + c.k.e, *ddt = p.ddt + t * p.ldddt + c.k.e;
    for_vectors(c.k.width, [&](int64_t e, auto lanes) {
      const Vec x = load(of_x + e, lanes), dy = load(b.dy[i] + e), dinput = load(b.dinput[i] + e);
      const Vec D = of_D != nullptr ? load(of_D + e, lanes) : zero();
      const Vec draw = mul(fma(x, dinput, load(b.dstep[i] + e)), load(b.slope[i] + e));
      store(ddt + e, add(load(ddt + e, lanes), draw), lanes);
      store(dx + e, add(load(dx + e, lanes), fma(load(b.dt[i] + e), dinput, mul(D, dy))), lanes);
      store(b.dD + e, fma(dy, x, load(b.dD + e)));
      store(b.ddt_bias + e, add(draw, load(b.ddt_bias + e)));
      store(b.y[i] + e, fma(D, x, load(b.y[i] + e)));
    });
    if (z == nullptr) continue;
    const float* dout = p.dy + t * p.lddy + c.k.e;
    float* dz = p.dz + t * p.lddz + c.k.e;
    for_vectors(c.k.width, [&](int64_t e, auto lanes) {  // d silu / dz = σ·(1 + z·(1 − σ))
      const Vec gate = load(b.gate[i] + e), one = set1(1.0f);
      const Vec slope = mul(gate, fma(load(z + e, lanes), sub(one, gate), one));
      const Vec dy = mul(load(dout + e, lanes), load(b.y[i] + e));
      store(dz + e, fma(dy, slope, load(dz + e, lanes)), lanes);
    });
  }
}

// [N][kBlock] of the block, and back.
void copy_in(const Task& k, const float* src, int64_t ld, float* dst) {
  for (int64_t n = 0; n < k.p.f.N; ++n) memcpy(dst + n * kBlock, src + n * ld, static_cast<size_t>(k.width) * 4);
}
void copy_out(const Task& k, const float* src, float* dst, int64_t ld) {
  for (int64_t n = 0; n < k.p.f.N; ++n) memcpy(dst + n * ld, src + n * kBlock, static_cast<size_t>(k.width) * 4);
}

Piece piece_of(const Task& k, Buffers& b, int64_t i) {
  return {k, b, k.first + i * kPiece, min(kPiece, k.length - i * kPiece)};
}

void walk_forward(const Task& k, Buffers& b) {
  const int64_t size = k.p.f.N * kBlock;
  copy_in(k, k.p.before + k.s * k.p.f.N * k.p.f.E + k.e, k.p.f.E, b.states);
  for (int64_t i = 0; i + 1 < k.pieces(); ++i) {
    const Piece c = piece_of(k, b, i);
    begin<false>(c);
    for (int64_t e = 0; e < k.width; e += kVecs * kLanes) {
      for (int64_t n = 0; n < k.p.f.N; ++n) forward(c, n, e, b.states + i * size, b.states + (i + 1) * size);
    }
  }
}

void walk_back(const Piece& c, const float* before) {
  float* rows = c.k.rows + (c.t - c.k.first) * 2 * c.k.columns;
  memset(rows, 0, static_cast<size_t>(c.n * 2 * c.k.columns) * 4);
  begin<true>(c);
  begin_back(c);
  for (int64_t e = 0; e < c.k.width; e += kVecs * kLanes) {
    int64_t n = 0;
    for (; n + kRows <= c.k.p.f.N; n += kRows) again<kRows>(c, n, e, before), back<kRows>(c, n, e, rows);
    for (; n < c.k.p.f.N; ++n) again<1>(c, n, e, before), back<1>(c, n, e, rows);
  }
  end_back(c);
}

void run(const Task& k) {
  const Mamba1ScanParams& f = k.p.f;
  const int64_t size = f.N * kBlock, floats = (k.pieces() + 3) * size;
  const size_t bytes = sizeof(Buffers) + static_cast<size_t>(floats) * 4;
  void* memory = task_workspace(bytes);
  memset(memory, 0, bytes);
  Buffers& b = *static_cast<Buffers*>(memory);
  b.A = reinterpret_cast<float*>(&b + 1), b.g = b.A + size, b.dA = b.g + size, b.states = b.dA + size;
  float* dstate = k.p.dstate + f.spans.slot[k.s] * k.p.dstate_stride + k.e;
  copy_in(k, f.A + k.e, f.E, b.A);
  copy_in(k, dstate, f.E, b.g);
  walk_forward(k, b);
  for (int64_t i = k.pieces() - 1; i >= 0; --i) walk_back(piece_of(k, b, i), b.states + i * size);
  copy_out(k, b.g, dstate, f.E);
  for (int64_t i = 0; i < size; i += kLanes) store(b.dA + i, mul(load(b.dA + i), set1(kLn2)));
  copy_out(k, b.dA, k.sums + k.e, f.E);
  memcpy(k.sums + f.N * f.E + k.e, b.dD, static_cast<size_t>(k.width) * 4);
  memcpy(k.sums + (f.N + 1) * f.E + k.e, b.ddt_bias, static_cast<size_t>(k.width) * 4);
}

}  // namespace

void mamba1_scan_grad(const Exec& exec, const Mamba1ScanGradParams& p) {
  const int64_t E = p.f.E, N = p.f.N, columns = whole_vectors(N), blocks = ceil_div(E, kBlock);
  scan_gradients(
      exec, p.f.spans, {blocks, 2 * columns, (N + 2) * E},
      [&](const ScanTask& t) {
        const int64_t e = t.i * kBlock;
        run({p, e, min(kBlock, E - e), t.s, t.first, t.length, t.rows, t.sums, columns});
      },
      [&](int64_t t, const float* rows, int64_t stride) {
        for (int64_t i = 0; i < blocks; ++i, rows += stride) {
          add_row(p.dB + t * p.lddB, rows, N);
          add_row(p.dC + t * p.lddC, rows + columns, N);
        }
      },
      [&](const float* sums) {
        if (p.dA != nullptr) add_row(p.dA, sums, N * E);
        if (p.dD != nullptr) add_row(p.dD, sums + N * E, E);
        if (p.ddt_bias != nullptr) add_row(p.ddt_bias, sums + (N + 1) * E, E);
      });
}

}  // namespace krait::KRAIT_ISA
