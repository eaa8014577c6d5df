// Driver of the matmul: packs activations, cuts the output into tasks, walks a task in tiles.
#include <string.h>

#include "krait/backends/cpu/isa/int8_tile.h"
#include "krait/backends/cpu/isa/matmul_grid.h"
#include "krait/backends/cpu/isa/matmul_pack.h"
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/workspace.h"

namespace krait::KRAIT_ISA {
namespace {

constexpr int64_t kRowChunk = 384;  // rows packed at a time: a multiple of kMaxRows
constexpr int64_t kBlockK = 256;    // k values of a block, so that a block's activations and weights stay in L2
constexpr int64_t kPanelsPerTask = 8;
constexpr int64_t kTaskMin = 1 << 16;  // products below which a task costs less than handing it out

// One packed panel of activations.
struct Piece {
  int32_t cls, rows;  // class of tile, rows that exist
  int64_t m0;         // first row, within the chunk
  int64_t at;         // first element, in packed rows
};

struct Plan {
  MatmulParams p;
  const TileKernels* tiles;
  XForm form;
  int64_t w_stride;   // bytes of a panel
  int64_t x_per_row;  // elements of a packed row
  int64_t m0;         // first row of the chunk
  const float* x;     // packed chunk
  Piece pieces[kRowChunk / kMaxRows + 4];
  int64_t n_pieces, rows_packed;
  Grid grid;
};

// Cuts `rows` rows into panels of the biggest classes; what is left over is rounded up to a class.
void plan_rows(Plan& plan, int64_t rows) {
  plan.n_pieces = 0;
  int64_t at = 0;
  for (int64_t m = 0; m < rows;) {
    const int64_t left = rows - m;
    int cls = kClasses - 1;
    if (left < kMaxRows) {  // the smallest class that holds them all, or else the biggest that they fill
      cls = 0;
      while (cls + 1 < kClasses && kClassRows[cls] < left) ++cls;
      if (kClassRows[cls] == kMaxRows && left <= 3 * kMaxRows / 4) --cls;
    }
    const auto n = static_cast<int32_t>(min(left, kClassRows[cls]));
    plan.pieces[plan.n_pieces++] = {cls, n, m, at};
    m += n;
    at += kClassRows[cls];
  }
  plan.rows_packed = at;
}

// Many rows have pieces enough to share out.
void plan_tasks(Plan& plan, int64_t threads) {
  plan.grid =
      make_grid(ceil_div(plan.p.N, kPanel), plan.n_pieces, threads, kPanelsPerTask,
                plan.rows_packed <= kMaxRows ? 1 : kPanelsPerTask, plan.rows_packed * plan.p.K * kPanel, kTaskMin);
}

XForm x_form(const MatmulParams& p, const TileKernels** tiles) {
  if (p.w_dtype == DType::kF32) {
    *tiles = &tiles_f32();
  } else if (p.w_dtype == DType::kF16) {
    *tiles = &tiles_f16();
  } else {
    *tiles = &tiles_bf16();
#ifdef __AVX512BF16__
    if (p.compute == Compute::kBF16) *tiles = &tiles_dot1();
    if (p.compute == Compute::kBF16x2) *tiles = &tiles_dot2();
    if (p.compute == Compute::kBF16) return XForm::kPairs;
    if (p.compute == Compute::kBF16x2) return XForm::kSplitPairs;
#else
    if (p.compute == Compute::kBF16) return XForm::kRounded;
#endif
  }
  return XForm::kF32;
}

// A tile that sticks out of y, through a buffer.
void run_edge(TileKernel kernel, Tile tile, int rows, int64_t cols, int64_t width) {
  alignas(64) float buffer[kMaxTile];
  alignas(64) float bias[kPanel * 8];
  float* y = tile.y;
  const int64_t ldy = tile.ldy;
  const auto bytes = static_cast<size_t>(cols) * 4;
  if (tile.carry) {
    memset(buffer, 0, sizeof(buffer));
    for (int m = 0; m < rows; ++m) memcpy(buffer + m * width, y + m * ldy, bytes);
  }
  if (tile.bias != nullptr) {
    memset(bias, 0, sizeof(bias));
    memcpy(bias, tile.bias, bytes);
    tile.bias = bias;
  }
  tile.y = buffer;
  tile.ldy = width;
  kernel(tile);
  for (int m = 0; m < rows; ++m) memcpy(y + m * ldy, buffer + m * width, bytes);
}

// Tiles read their panels side by side, a stream each. Short streams end before the processor follows them: the panels
// of a tile, which lie one after the other, are first read as a single stream (16 KB at most, half of L1).
constexpr int64_t kShortPanel = 2048;
void read_through(const char* p, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) static_cast<void>(*static_cast<const volatile char*>(p + at));
}

// Pieces [i0, i1) of one class times panels [n0, n1), products k0 .. k0 + k − 1.
void run_block(const Plan& plan, int64_t i0, int64_t i1, int64_t n0, int64_t n1, int64_t k0, int64_t k) {
  const MatmulParams& p = plan.p;
  const int cls = plan.pieces[i0].cls;
  const int64_t w_per_k = p.w_dtype == DType::kF32 ? 4 * kPanel : 2 * kPanel;
  Tile t;
  t.k = k;
  t.w_stride = plan.w_stride;
  t.carry = k0 != 0;
  for (int64_t n = n0; n < n1;) {
    int log = kClassLogPanels[cls];
    while ((int64_t{1} << log) > n1 - n) --log;
    const int64_t width = int64_t{kPanel} << log;
    const int64_t cols = min(width, p.N - n * kPanel);
    const TileKernel kernel = plan.tiles->at[cls][log];
    t.w = static_cast<const char*>(p.w) + n * plan.w_stride + k0 * w_per_k;
    t.bias = p.bias != nullptr && k0 + k == p.K ? p.bias + n * kPanel : nullptr;
    if (plan.w_stride <= kShortPanel) read_through(t.w, min(width / kPanel, n1 - n) * plan.w_stride);
    for (int64_t i = i0; i < i1; ++i) {
      const Piece& piece = plan.pieces[i];
      t.x = plan.x + piece.at * plan.x_per_row + x_elements(plan.form, k0) * kClassRows[cls];
      t.y = p.y + (plan.m0 + piece.m0) * p.ldy + n * kPanel;
      t.ldy = p.ldy;
      if (cols == width && piece.rows == kClassRows[cls]) {
        kernel(t);
      } else {
        run_edge(kernel, t, piece.rows, cols, width);
      }
    }
    n += int64_t{1} << log;
  }
}

void run_task(const Plan& plan, int64_t task) {
  const int64_t n0 = plan.grid.first_panel(task), n1 = plan.grid.end_panel(task);
  const int64_t first = plan.grid.first_piece(task), end = plan.grid.end_piece(task);
  const int64_t K = plan.p.K;
  const int64_t block = plan.rows_packed <= 2 ? K : kBlockK;
  for (int64_t k0 = 0; k0 < K; k0 += block) {
    for (int64_t i = first; i < end;) {
      int64_t j = i + 1;
      while (j < end && plan.pieces[j].cls == plan.pieces[i].cls) ++j;
      run_block(plan, i, j, n0, n1, k0, min(block, K - k0));
      i = j;
    }
  }
}

void run_chunk(const Exec& exec, Plan& plan, int64_t rows) {
  const MatmulParams& p = plan.p;
  plan_rows(plan, rows);
  plan_tasks(plan, exec.pool->n_threads());
  const float* x = p.x + plan.m0 * p.ldx;
  if (rows == 1 && plan.form == XForm::kF32) {
    plan.x = x;
  } else {
    const auto bytes = static_cast<size_t>(plan.rows_packed * plan.x_per_row) * 4;
    auto* packed = static_cast<float*>(call_workspace(bytes));
    plan.x = packed;
    auto pack = [&](int64_t i) {
      const Piece& piece = plan.pieces[i];
      pack_x(plan.form, x + piece.m0 * p.ldx, p.ldx, piece.rows, p.K, kClassRows[piece.cls],
             packed + piece.at * plan.x_per_row);
    };
    if (rows * p.K < kTaskMin / 2) {
      for (int64_t i = 0; i < plan.n_pieces; ++i) pack(i);
    } else {
      exec.pool->parallel_for(plan.n_pieces, pack);
    }
  }
  exec.pool->parallel_for(plan.grid.tasks(), [&](int64_t task) { run_task(plan, task); });
}

}  // namespace

void matmul(const Exec& exec, const MatmulParams& p) {
  if (is_block_type(p.w_dtype)) return int8_matmul(exec, p);
  Plan plan;
  plan.p = p;
  plan.form = x_form(p, &plan.tiles);
  plan.w_stride = static_cast<int64_t>(packed_weight_bytes(p.w_dtype, kPanel, p.K));
  plan.x_per_row = x_elements(plan.form, p.K);
  for (int64_t m0 = 0; m0 < p.M; m0 += kRowChunk) {
    plan.m0 = m0;
    run_chunk(exec, plan, min(kRowChunk, p.M - m0));
  }
}

}  // namespace krait::KRAIT_ISA
