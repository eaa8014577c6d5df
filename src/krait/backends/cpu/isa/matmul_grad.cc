// Gradients of a matmul's weight and bias, by the matmul's f32 tiles with time as the dimension of the sum: of a block
// of times dy becomes panels of rows of dw, x panels of columns. Threads share dw out, never the times.
#include "krait/backends/cpu/isa/matmul_blocks.h"
#include "krait/backends/cpu/isa/matmul_grid.h"
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/isa/sums.h"
#include "krait/backends/cpu/isa/tasks.h"
#include "krait/backends/cpu/workspace.h"

namespace krait::KRAIT_ISA {
namespace {

constexpr int64_t kBlockT = 256;    // times of a block: its panels of a tile stay in L1 or near it
constexpr int64_t kRowChunk = 768;  // rows of dw whose dy is packed at a time: a multiple of kMaxRows
constexpr int64_t kGroup = 8;       // panels that are packed together: rows of x and dy are then read in long runs
constexpr int64_t kPanelsPerTask = 8;
constexpr int64_t kProductsMin = 1 << 16;  // below which a task costs less than handing it out

// Columns of x from panel j0 on -> panels [times][16].
void pack_columns(const float* x, int64_t ldx, int64_t times, int64_t cols, float* to) {
  const int64_t whole = cols / kPanel, size = times * kPanel;
  for (int64_t t = 0; t < times; ++t) {
    const float* row = x + t * ldx;
    float* at = to + t * kPanel;
    for (int64_t j = 0; j < whole; ++j, row += kPanel, at += size) {
      KRAIT_UNROLL for (int v = 0; v < kPanel; v += kLanes) store(at + v, load(row + v));
    }
  }
  const int64_t rest = cols - whole * kPanel;
  if (rest == 0) return;
  for (int64_t t = 0; t < times; ++t) {
    const float* row = x + t * ldx + whole * kPanel;
    float* at = to + whole * size + t * kPanel;
    for (int v = 0; v < kPanel; v += kLanes) store(at + v, zero());
    for_vectors(rest, [&](int64_t i, auto lanes) { store(at + i, load(row + i, lanes), lanes); });
  }
}

// Columns of dy of the pieces [first, end) -> panels [times][rows of the class].
void pack_rows(const float* dy, int64_t lddy, int64_t times, const Piece* first, const Piece* end, float* to) {
  static_assert(kMaxRows < kLanes);
  const Piece* rest = first;
  while (rest < end && rest->rows == kMaxRows) ++rest;
  const Part lanes = first_lanes(kMaxRows);
  for (int64_t t = 0; t < times && rest > first; ++t) {
    const float* row = dy + t * lddy + first->m0;
    float* at = to + first->at * times + t * kMaxRows;
    for (int64_t i = rest - first; i > 0; --i, row += kMaxRows, at += times * kMaxRows) {
      store(at, load(row, lanes), lanes);
    }
  }
  for (const Piece* p = rest; p < end; ++p) {
    const int64_t width = kClassRows[p->cls];
    for (int64_t t = 0; t < times; ++t) {
      const Vec row = load(dy + t * lddy + p->m0, first_lanes(p->rows));
      store(to + p->at * times + t * width, row, first_lanes(width));
    }
  }
}

struct Plan {
  MatmulGradParams p;
  int64_t t0, times;  // the block
  float *x, *dy;      // its panels
};

void pack_x(const Exec& exec, const Plan& plan) {
  const MatmulGradParams& p = plan.p;
  constexpr int64_t kCols = kGroup * kPanel;
  parallel_items(exec, ceil_div(p.K, kCols), plan.times * kGroup * 4, [&](int64_t i) {
    pack_columns(p.x + plan.t0 * p.ldx + i * kCols, p.ldx, plan.times, min(kCols, p.K - i * kCols),
                 plan.x + i * kCols * plan.times);
  });
}

// Rows [n0, n0 + rows) of dw.
void run_chunk(const Exec& exec, const Plan& plan, int64_t n0, int64_t rows) {
  const MatmulGradParams& p = plan.p;
  Piece pieces[most_pieces(kRowChunk)];
  const Pieces cut = cut_rows(rows, pieces);
  parallel_items(exec, ceil_div(cut.n, kGroup), plan.times * kGroup * 4, [&](int64_t i) {
    pack_rows(p.dy + plan.t0 * p.lddy + n0, p.lddy, plan.times, pieces + i * kGroup,
              pieces + min(cut.n, (i + 1) * kGroup), plan.dy);
  });
  const Block b{&tiles_f32(),
                plan.dy,
                plan.times,
                0,
                reinterpret_cast<const char*>(plan.x),
                plan.times * kPanel * 4,
                0,
                plan.times,
                true,
                nullptr,
                p.dw + n0 * p.K,
                p.K,
                p.K};
  const Grid grid = make_grid(ceil_div(p.K, kPanel), cut.n, exec.pool->n_threads(), kPanelsPerTask, kPanelsPerTask,
                              cut.rows_packed * plan.times * kPanel, kProductsMin);
  exec.pool->parallel_for(grid.tasks(), [&](int64_t task) {
    run_block(b, pieces + grid.first_piece(task), pieces + grid.end_piece(task), grid.first_panel(task),
              grid.end_panel(task));
  });
}

void weight_grad(const Exec& exec, const MatmulGradParams& p) {
  const int64_t columns = ceil_div(p.K, kPanel) * kPanel, most = min(kBlockT, p.T);
  Plan plan{p, 0, 0, nullptr, nullptr};
  plan.x = static_cast<float*>(call_workspace(static_cast<size_t>(most * (columns + kRowChunk + kMaxRows)) * 4));
  plan.dy = plan.x + most * columns;
  for (; plan.t0 < p.T; plan.t0 += plan.times) {
    plan.times = min(kBlockT, p.T - plan.t0);
    pack_x(exec, plan);
    for (int64_t n = 0; n < p.N; n += kRowChunk) run_chunk(exec, plan, n, min(kRowChunk, p.N - n));
  }
}

}  // namespace

void matmul_grad(const Exec& exec, const MatmulGradParams& p) {
  if (p.db != nullptr) add_rows(exec, p.dy, p.lddy, p.T, p.N, p.db);
  if (p.dw != nullptr) weight_grad(exec, p);
}

}  // namespace krait::KRAIT_ISA
