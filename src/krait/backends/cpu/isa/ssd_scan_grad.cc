// Gradients of the state space dual scan, by chunks (spec/mamba.md §3.4). A task is a few heads of a group of one
// sequence: it walks forward and keeps the states at the starts of chunks, then back over the chunks, each a handful of
// small matrix products. Decays between two tokens of a chunk are products of the tokens' decays, never e^(difference).
// States are kept as [P, N]: most products then have whole rows of B and C as vectors.
#include <string.h>

#include "krait/backends/cpu/isa/matmul_pack.h"
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/scan_grad.h"
#include "krait/backends/cpu/isa/small_product.h"

namespace krait::KRAIT_ISA {
namespace {

constexpr int64_t kChunk = 32;  // tokens
constexpr int64_t kWide = kChunk / kLanes;
constexpr int64_t kHeads = 2;  // of a task

struct Sizes {
  explicit Sizes(const SsdScanParams& f)
      : columns(whole_vectors(f.N)),
        channels(whole_vectors(f.P)),
        blocks_of_group(ceil_div(f.H / f.G, kHeads)),
        blocks(blocks_of_group * f.G) {}
  int64_t columns, channels;        // N and P in whole vectors
  int64_t blocks_of_group, blocks;  // of heads: tasks of a sequence
};

// What one head needs to know of the times of a chunk.
struct Steps {
  alignas(64) float dt[kChunk], decay[kChunk];
  alignas(64) float slope[kChunk];            // d dt / d raw
  alignas(64) float from_start[kChunk];       // decay from before the chunk up to token i
  alignas(64) float to_end[kChunk];           // decay from token j to the chunk's last
  alignas(64) float between[kChunk][kChunk];  // [i][j]: decay from token j to token i >= j; 0 for i < j
  float all;                                  // decay over the whole chunk
};

struct Task {
  const SsdScanGradParams& p;
  const Sizes& z;
  int64_t h0, heads;         // heads h0 .. h0 + heads − 1
  int64_t s, first, length;  // sequence and its tokens
  float* rows;               // [length][dB [columns], dC [columns]]
  float* sums;               // dA [H], ddt_bias [H], dD [H·P]
};

// Scratch of a task.
struct Buffers {
  float *states, *g;       // [heads][chunks][P][columns] at the starts of chunks; [heads][P][columns]
  float *B, *C, *Bt, *CB;  // [kChunk][columns] twice, [N][kChunk], C·Bᵀ [kChunk][kChunk]
  float *Xt, *dXt;         // [P][kChunk]
  float *Xs, *dYs, *dX;    // [kChunk][channels]: x and dy scaled to the end and the start of the chunk
  float* part;             // [kChunk][columns]
  float *YX, *weights;     // [kChunk][kChunk]

  static int64_t floats(const Task& k) {
    Buffers b{};
    return b.carve(k, nullptr);
  }
  int64_t carve(const Task& k, float* base) {
    int64_t used = 0;
    const auto take = [&](int64_t n) {
      float* at = base + used;
      used += whole_vectors(n);
      return at;
    };
    const int64_t P = k.p.f.P, columns = k.z.columns, rows = kChunk * columns, square = kChunk * kChunk;
    states = take(k.heads * ceil_div(k.length, kChunk) * P * columns);
    g = take(k.heads * P * columns);
    B = take(rows), C = take(rows), Bt = take(k.p.f.N * kChunk), CB = take(square);
    Xt = take(P * kChunk), dXt = take(P * kChunk);
    Xs = take(kChunk * k.z.channels), dYs = take(kChunk * k.z.channels), dX = take(kChunk * k.z.channels);
    part = take(rows);
    YX = take(square), weights = take(square);
    return used;
  }
};

// Tokens t .. t + n − 1; i is the number of the chunk.
struct Chunk {
  const Task& k;
  Buffers& b;
  int64_t i, t, n;
};

void transpose_rows(const float* src, int64_t ld, int64_t rows, int64_t cols, float* dst, int64_t ld_dst) {
  transpose(reinterpret_cast<const char*>(src), ld * 4, rows, cols, dst, ld_dst);
}

// The chunk's rows of B or C, zeros around them.
void copy_rows(const Chunk& c, const float* src, int64_t ld, float* dst) {
  const int64_t N = c.k.p.f.N, columns = c.k.z.columns;
  if (N < columns || c.n < kChunk) memset(dst, 0, static_cast<size_t>(kChunk * columns) * 4);
  for (int64_t i = 0; i < c.n; ++i) memcpy(dst + i * columns, src + (c.t + i) * ld, static_cast<size_t>(N) * 4);
}

// dst [cols, kChunk] <- the chunk's rows of src, transposed; zeros beyond the last token.
void transpose_chunk(const Chunk& c, const float* src, int64_t ld, int64_t cols, float* dst) {
  if (c.n < kChunk) memset(dst, 0, static_cast<size_t>(cols * kChunk) * 4);
  transpose_rows(src, ld, c.n, cols, dst, kChunk);
}

// Windows [kChunk] of these that begin at kChunk − i have a one at i, and ones before i.
struct Marks {
  constexpr Marks() {
    one[kChunk] = 1.0f;
    for (int64_t i = 0; i < kChunk; ++i) below[i] = 1.0f;
  }
  alignas(64) float one[2 * kChunk] = {};
  alignas(64) float below[2 * kChunk] = {};
};
constexpr Marks kMarks;

constexpr float kLeast = 0x1p-96f;  // a decay below is as good as zero, and its products would be subnormal

[[gnu::flatten]] void time_steps(const Chunk& c, int64_t h, Steps& s) {
  const SsdScanParams& f = c.k.p.f;
  const float bias = f.dt_bias != nullptr ? f.dt_bias[h] : 0.0f;
  const Vec lowest = set1(f.dt_min), highest = set1(f.dt_max), A = set1(f.A[h]), least = set1(kLeast);
  for (int64_t i = 0; i < kChunk; ++i) s.dt[i] = i < c.n ? f.dt[(c.t + i) * f.lddt + h] + bias : 0.0f;
  for (int64_t i = 0; i < kChunk; i += kLanes) {
    const Vec raw = load(s.dt + i), plus = softplus(raw), dt = min(highest, max(lowest, plus));
    const Vec below = select_less(plus, highest, sigmoid(raw), zero());
    store(s.slope + i, select_less(lowest, plus, below, zero()));
    store(s.dt + i, dt);
    store(s.decay + i, exp(mul(dt, A)));
  }
  Vec row[kWide];
  KRAIT_UNROLL for (int v = 0; v < kWide; ++v) row[v] = zero();
  for (int64_t i = 0; i < c.n; ++i) {
    const Vec decay = broadcast(s.decay + i);
    KRAIT_UNROLL for (int v = 0; v < kWide; ++v) {
      row[v] = fma(decay, row[v], load(kMarks.one + kChunk - i + v * kLanes));
      row[v] = select_less(row[v], least, zero(), row[v]);
      store(s.between[i] + v * kLanes, row[v]);
    }
    const float from_start = s.decay[0] * s.between[i][0];
    s.from_start[i] = from_start < kLeast ? 0.0f : from_start;
  }
  KRAIT_UNROLL for (int v = 0; v < kWide; ++v) store(s.to_end + v * kLanes, row[v]);
  s.all = s.from_start[c.n - 1];
}

// Xs_j = dt_j·to_end_j·x_j, which enters the state after the chunk.
[[gnu::flatten]] void scale_inputs(const Chunk& c, int64_t h, const Steps& s) {
  const SsdScanParams& f = c.k.p.f;
  for (int64_t i = 0; i < c.n; ++i) {
    const float* x = f.x + (c.t + i) * f.ldx + h * f.P;
    float* out = c.b.Xs + i * c.k.z.channels;
    const Vec scale = set1(s.dt[i] * s.to_end[i]);
    for_vectors(f.P, [&](int64_t e, auto lanes) { store(out + e, mul(scale, load(x + e, lanes))); });
  }
}

// dYs_i = from_start_i·dy_i, which the state before the chunk gets; the sums of dy·x by channels go to dD [P].
[[gnu::flatten]] void scale_outputs(const Chunk& c, int64_t h, const Steps& s, float* dD) {
  const SsdScanGradParams& p = c.k.p;
  for (int64_t i = 0; i < c.n; ++i) {
    const float* x = p.f.x + (c.t + i) * p.f.ldx + h * p.f.P;
    const float* dy = p.dy + (c.t + i) * p.lddy + h * p.f.P;
    float* out = c.b.dYs + i * c.k.z.channels;
    const Vec scale = set1(s.from_start[i]);
    for_vectors(p.f.P, [&](int64_t e, auto lanes) {
      const Vec d = load(dy + e, lanes);
      store(out + e, mul(scale, d));
      store(dD + e, fma(d, load(x + e, lanes), load(dD + e, lanes)), lanes);
    });
  }
}

// States at the starts of all chunks of all heads of the task.
[[gnu::flatten]] void walk_forward(const Task& k, Buffers& b) {
  const SsdScanParams& f = k.p.f;
  const int64_t columns = k.z.columns, size = f.P * columns, chunks = ceil_div(k.length, kChunk);
  const float* B = f.B + k.h0 / (f.H / f.G) * f.N;
  for (int64_t j = 0; j < k.heads; ++j) {
    float* first = b.states + j * chunks * size;
    memset(first, 0, static_cast<size_t>(size) * 4);  // also columns beyond N
    transpose_rows(k.p.before + (k.s * f.H + k.h0 + j) * f.N * f.P, f.P, f.N, f.P, first, columns);
  }
  Steps steps;
  for (int64_t i = 0; i + 1 < chunks; ++i) {
    const Chunk c{k, b, i, k.first + i * kChunk, kChunk};
    copy_rows(c, B, f.ldb, b.B);
    for (int64_t j = 0; j < k.heads; ++j) {
      const float* S = b.states + (j * chunks + i) * size;
      time_steps(c, k.h0 + j, steps);
      scale_inputs(c, k.h0 + j, steps);
      product(f.P, columns, kChunk, {b.Xs, 1, k.z.channels}, b.B, columns, Start{S, steps.all},
              b.states + (j * chunks + i + 1) * size, columns);
    }
  }
}

// out [n][kChunk] = a·bt for j <= i (and a little beyond, up to whole vectors).
void lower_product(const Chunk& c, const float* a, int64_t lda, const float* bt, int64_t K, float* out) {
  for (int64_t i = 0; i < c.n; i += kLanes) {
    product(min(kLanes, c.n - i), i + kLanes, K, {a + i * lda, lda, 1}, bt, kChunk, false, out + i * kChunk, kChunk);
  }
}

// rows [n][2·columns] += part [n][columns], or = if they are new;  dots[i] = part_i · with_i
[[gnu::flatten]] void add_part(const Chunk& c, const float* with, bool is_new, float* rows, float* dots) {
  const int64_t columns = c.k.z.columns;
  for (int64_t i = 0; i < c.n; ++i) {
    Vec dot = zero();
    float* row = rows + i * 2 * columns;
    for (int64_t e = 0; e < columns; e += kLanes) {
      const Vec v = load(c.b.part + i * columns + e);
      dot = fma(v, load(with + i * columns + e), dot);
      store(row + e, is_new ? v : add(load(row + e), v));
    }
    dots[i] = sum(dot);
  }
}

[[gnu::flatten]] float dot_product(const float* a, const float* b, int64_t n) {  // n in whole vectors
  Vec dot = zero();
  for (int64_t e = 0; e < n; e += kLanes) dot = fma(load(a + e), load(b + e), dot);
  return sum(dot);
}

// Within the chunk, [i][j], j <= i: YX <- between·dt_j·(dy_i·x_j), weights <- between·(C_i·B_j), and
// between <- M = YX·(C_i·B_j).
[[gnu::flatten]] void weigh(const Chunk& c, Steps& s) {
  for (int64_t i = 0; i < c.n; ++i) {
    float *YX = c.b.YX + i * kChunk, *weights = c.b.weights + i * kChunk, *between = s.between[i];
    const float* CB = c.b.CB + i * kChunk;
    for (int64_t j = 0; j <= i; j += kLanes) {
      const Vec L = load(between + j), of_CB = load(CB + j), of_YX = mul(mul(L, load(s.dt + j)), load(YX + j));
      store(YX + j, of_YX);
      store(weights + j, mul(L, of_CB));
      store(between + j, mul(of_YX, of_CB));
    }
  }
}

// What B, C and x get from within the chunk.
void add_within(const Chunk& c, const float* dy, float* dB, float* dC) {
  const int64_t P = c.k.p.f.P, columns = c.k.z.columns, ld = 2 * columns;
  for (int64_t i = 0; i < c.n; i += kLanes) {
    const int64_t rows = min(kLanes, c.n - i), after = c.n - i;
    const float *diagonal = c.b.YX + i * kChunk + i, *weights = c.b.weights + i * kChunk + i;
    product(rows, columns, i + rows, {c.b.YX + i * kChunk, kChunk, 1}, c.b.B, columns, true, dC + i * ld, ld);
    product(rows, columns, after, {diagonal, 1, kChunk}, c.b.C + i * columns, columns, true, dB + i * ld, ld);
    product(P, kLanes, after, {dy + i * c.k.p.lddy, 1, c.k.p.lddy}, weights, kChunk, true, c.b.dXt + i, kChunk);
  }
}

// da_m = Σ_{i>=m>j} M_ij + Σ_{i>=m} u_i + Σ_{j<m} w_j + rho
[[gnu::flatten]] void decay_sums(const Chunk& c, const Steps& s, const float* u, const float* w, float rho, float* da) {
  Vec later[kWide];  // Σ_{i>=m} M_ij
  KRAIT_UNROLL for (int v = 0; v < kWide; ++v) later[v] = zero();
  float outputs = 0.0f, inputs = 0.0f;
  for (int64_t m = c.n - 1; m >= 0; --m) {
    Vec across = zero();
    KRAIT_UNROLL for (int v = 0; v < kWide; ++v) {
      if (v * kLanes <= m) later[v] = add(later[v], load(s.between[m] + v * kLanes));
      across = fma(later[v], load(kMarks.below + kChunk - m + v * kLanes), across);
    }
    outputs += u[m];
    da[m] = sum(across) + outputs + rho;
  }
  for (int64_t m = 0; m < c.n; ++m) {
    da[m] += inputs;
    inputs += w[m];
  }
}

// ddt_j = x_j·dX_j; then dXt <- dt_j·dXt.
[[gnu::flatten]] void input_gradient(const Chunk& c, const Steps& s, float* ddt) {
  KRAIT_UNROLL for (int v = 0; v < kWide; ++v) {
    const Vec dt = load(s.dt + v * kLanes);
    Vec dot = zero();
    for (int64_t e = 0; e < c.k.p.f.P; ++e) {
      float* at = c.b.dXt + e * kChunk + v * kLanes;
      dot = fma(load(at), load(c.b.Xt + e * kChunk + v * kLanes), dot);
      store(at, mul(dt, load(at)));
    }
    store(ddt + v * kLanes, dot);
  }
}

[[gnu::flatten]] void add_dx(const Chunk& c, int64_t h) {
  const SsdScanGradParams& p = c.k.p;
  const int64_t P = p.f.P;
  transpose_rows(c.b.dXt, kChunk, P, c.n, c.b.dX, c.k.z.channels);
  const float* D = p.f.D == nullptr ? nullptr : p.f.D_per_channel ? p.f.D + h * P : p.f.D + h;
  for (int64_t i = 0; i < c.n; ++i) {
    float* dx = p.dx + (c.t + i) * p.lddx + h * P;
    const float* dy = p.dy + (c.t + i) * p.lddy + h * P;
    for_vectors(P, [&](int64_t e, auto lanes) {
      Vec d = load(c.b.dX + i * c.k.z.channels + e);
      if (D != nullptr) d = fma(p.f.D_per_channel ? load(D + e, lanes) : broadcast(D), load(dy + e, lanes), d);
      store(dx + e, add(load(dx + e, lanes), d), lanes);
    });
  }
}

// From the gradients of dt·x and of dt·A to those of raw dt, of A and of the bias.
void add_ddt(const Chunk& c, int64_t h, const Steps& s, const float* ddt, const float* da) {
  const SsdScanGradParams& p = c.k.p;
  float dA = 0.0f, dbias = 0.0f;
  for (int64_t i = c.n - 1; i >= 0; --i) {
    const float draw = (ddt[i] + p.f.A[h] * da[i]) * s.slope[i];
    p.ddt[(c.t + i) * p.ldddt + h] += draw;
    dA += s.dt[i] * da[i];
    dbias += draw;
  }
  c.k.sums[h] += dA;
  c.k.sums[p.f.H + h] += dbias;
}

// Head h0 + j of the task, back over one chunk.
void walk_back(const Chunk& c, int64_t j) {
  const SsdScanGradParams& p = c.k.p;
  Buffers& b = c.b;
  const int64_t h = c.k.h0 + j, P = p.f.P, columns = c.k.z.columns, size = P * columns, ld = 2 * columns;
  const float* S = b.states + (j * ceil_div(c.k.length, kChunk) + c.i) * size;
  const float* dy = p.dy + c.t * p.lddy + h * P;
  float *g = b.g + j * size, *dB = c.k.rows + (c.t - c.k.first) * ld, *dC = dB + columns;
  Steps steps;
  alignas(64) float u[kChunk], w[kChunk], da[kChunk], ddt[kChunk];
  time_steps(c, h, steps);
  transpose_chunk(c, p.f.x + c.t * p.f.ldx + h * P, p.f.ldx, P, b.Xt);
  scale_inputs(c, h, steps);
  scale_outputs(c, h, steps, c.k.sums + 2 * p.f.H + h * P);
  // through the state before the chunk, and through the one after it
  product(c.n, columns, P, {b.dYs, c.k.z.channels, 1}, S, columns, false, b.part, columns);
  add_part(c, b.C, j == 0, dC, u);
  product(c.n, columns, P, {b.Xs, c.k.z.channels, 1}, g, columns, false, b.part, columns);
  add_part(c, b.B, j == 0, dB, w);
  product(P, kChunk, p.f.N, {g, columns, 1}, b.Bt, kChunk, false, b.dXt, kChunk);
  for (int64_t e = 0; e < P * kChunk; e += kLanes) {
    store(b.dXt + e, mul(load(b.dXt + e), load(steps.to_end + e % kChunk)));
  }
  const float rho = steps.all * dot_product(S, g, size);
  product(P, columns, c.n, {b.dYs, 1, c.k.z.channels}, b.C, columns, Start{g, steps.all}, g, columns);
  // within the chunk
  lower_product(c, dy, p.lddy, b.Xt, P, b.YX);
  weigh(c, steps);
  add_within(c, dy, dB, dC);
  decay_sums(c, steps, u, w, rho, da);
  input_gradient(c, steps, ddt);
  add_dx(c, h);
  add_ddt(c, h, steps, ddt, da);
}

void run(const Task& k) {
  const SsdScanGradParams& p = k.p;
  const SsdScanParams& f = p.f;
  Buffers b{};
  b.carve(k, static_cast<float*>(task_workspace(static_cast<size_t>(Buffers::floats(k)) * 4)));
  const int64_t columns = k.z.columns, size = f.P * columns, group = k.h0 / (f.H / f.G);
  for (int64_t j = 0; j < k.heads; ++j) {
    const int64_t h = k.h0 + j;
    k.sums[h] = k.sums[f.H + h] = 0.0f;
    memset(k.sums + 2 * f.H + h * f.P, 0, static_cast<size_t>(f.P) * 4);
  }
  walk_forward(k, b);
  float* dstate = p.dstate + f.spans.slot[k.s] * p.dstate_stride + k.h0 * f.N * f.P;
  memset(b.g, 0, static_cast<size_t>(k.heads * size) * 4);  // also columns beyond N
  for (int64_t j = 0; j < k.heads; ++j) {
    transpose_rows(dstate + j * f.N * f.P, f.P, f.N, f.P, b.g + j * size, columns);
  }
  for (int64_t i = ceil_div(k.length, kChunk) - 1; i >= 0; --i) {
    const Chunk c{k, b, i, k.first + i * kChunk, min(kChunk, k.length - i * kChunk)};
    copy_rows(c, f.B + group * f.N, f.ldb, b.B);
    copy_rows(c, f.C + group * f.N, f.ldc, b.C);
    transpose_chunk(c, f.B + group * f.N + c.t * f.ldb, f.ldb, f.N, b.Bt);
    lower_product(c, b.C, columns, b.Bt, f.N, b.CB);
    for (int64_t j = 0; j < k.heads; ++j) walk_back(c, j);
  }
  for (int64_t j = 0; j < k.heads; ++j) {
    transpose_rows(b.g + j * size, columns, f.P, f.N, dstate + j * f.N * f.P, f.P);
  }
}

// What the parameters get from one sequence.
void add_sums(const SsdScanGradParams& p, const float* sums) {
  const int64_t H = p.f.H, P = p.f.P, of_one = p.f.D_per_channel ? 1 : P;
  for (int64_t h = 0; h < H && p.dA != nullptr; ++h) p.dA[h] += sums[h];
  for (int64_t h = 0; h < H && p.ddt_bias != nullptr; ++h) p.ddt_bias[h] += sums[H + h];
  for (int64_t i = 0; i < H * P && p.dD != nullptr; i += of_one) {
    float all = 0.0f;
    for (int64_t c = 0; c < of_one; ++c) all += sums[2 * H + i + c];
    p.dD[i / of_one] += all;
  }
}

}  // namespace

void ssd_scan_grad(const Exec& exec, const SsdScanGradParams& p) {
  const Sizes z(p.f);
  const int64_t heads = p.f.H / p.f.G, N = p.f.N;
  scan_gradients(
      exec, p.f.spans, {z.blocks, 2 * z.columns, p.f.H * (2 + p.f.P)},
      [&](const ScanTask& t) {
        const int64_t in_group = t.i % z.blocks_of_group * kHeads, h0 = t.i / z.blocks_of_group * heads + in_group;
        run({p, z, h0, min(kHeads, heads - in_group), t.s, t.first, t.length, t.rows, t.sums});
      },
      [&](int64_t t, const float* rows, int64_t stride) {
        for (int64_t i = 0; i < z.blocks; ++i, rows += stride) {
          const int64_t g = i / z.blocks_of_group;
          add_row(p.dB + t * p.lddB + g * N, rows, N);
          add_row(p.dC + t * p.lddC + g * N, rows + z.columns, N);
        }
      },
      [&](const float* sums) { add_sums(p, sums); });
}

}  // namespace krait::KRAIT_ISA
