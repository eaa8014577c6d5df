// Driver of the integer matmul: quantizes activations, cuts the output into tasks, walks a task in tiles.
#include "krait/backends/cpu/isa/int8_tile.h"
#include "krait/backends/cpu/isa/matmul_grid.h"
#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/workspace.h"

namespace krait::KRAIT_ISA {
namespace {

constexpr int64_t kMaxChunk = 384;          // rows quantized at a time
constexpr int64_t kChunkBytes = 384 << 10;  // of quantized rows, so that they stay in L2
constexpr int64_t kTaskMin = 1 << 17;       // products below which a task costs less than handing it out
constexpr int64_t kQuantizeMin = 1 << 14;   // elements below which the same holds for quantization
constexpr int64_t kPanelsPerTask = 16;

// One panel of quantized rows.
struct Piece {
  int32_t cls, rows;  // class of tile, rows that exist
  int64_t m0;         // first row, within the chunk
  int64_t at;         // first row of the panel, in packed rows
};

struct Plan {
  MatmulParams p;
  Format format;
  const Int8Kernels* kernels;
  int64_t w_stride;   // bytes of a panel of the weight
  int64_t x_per_row;  // bytes of a quantized row
  int64_t m0;         // first row of the chunk
  char* x;            // quantized chunk
  Piece pieces[kMaxChunk / kInt8MaxRows + 1];
  int64_t n_pieces, rows_packed;
  Grid grid;
};

// As few panels as there can be, of rows as equal as they can be.
void plan_rows(Plan& plan, int64_t rows) {
  plan.n_pieces = ceil_div(rows, kInt8MaxRows);
  int64_t m = 0, at = 0;
  for (int64_t i = 0; i < plan.n_pieces; ++i) {
    const int64_t n = ceil_div(rows - m, plan.n_pieces - i);
    int cls = 0;
    while (kInt8Rows[cls] < n) ++cls;
    plan.pieces[i] = {cls, static_cast<int32_t>(n), m, at};
    m += n;
    at += kInt8Rows[cls];
  }
  plan.rows_packed = at;
}

// A task is at least as wide as the widest tile.
void plan_tasks(Plan& plan, int64_t threads) {
  plan.grid = make_grid(ceil_div(plan.p.N, kPanel), plan.n_pieces, threads, kPanelsPerTask, kInt8Strips[0] / kStrips,
                        plan.rows_packed * plan.p.K * kPanel, kTaskMin);
}

void run_task(const Plan& plan, int64_t task) {
  const MatmulParams& p = plan.p;
  const int64_t s0 = plan.grid.first_panel(task) * kStrips, s1 = plan.grid.end_panel(task) * kStrips;
  const int64_t i0 = plan.grid.first_piece(task), i1 = plan.grid.end_piece(task);
  const int64_t strips = i1 - i0 == 1 ? kInt8Strips[plan.pieces[i0].cls] : 1;
  for (int64_t s = s0; s < s1;) {
    const bool wide = s1 - s >= strips && strips > 1;
    for (int64_t i = i0; i < i1; ++i) {
      const Piece& piece = plan.pieces[i];
      Int8Tile t;
      t.x = plan.x + piece.at * plan.x_per_row;
      t.w = static_cast<const char*>(p.w) + s / kStrips * plan.w_stride;
      t.strip = s % kStrips;
      t.w_stride = plan.w_stride;
      t.K = p.K;
      t.y = p.y + (plan.m0 + piece.m0) * p.ldy + s * kLanes;
      t.ldy = p.ldy;
      t.bias = p.bias != nullptr ? p.bias + s * kLanes : nullptr;
      t.rows = piece.rows;
      t.cols = p.N - s * kLanes;
      (wide ? plan.kernels->wide : plan.kernels->at)[piece.cls](t);
    }
    s += wide ? strips : 1;
  }
}

void quantize_piece(const Plan& plan, int64_t i) {
  const MatmulParams& p = plan.p;
  const Piece& piece = plan.pieces[i];
  const int MR = kInt8Rows[piece.cls];
  for (int r = 0; r < MR; ++r) {
    const float* row = r < piece.rows ? p.x + (plan.m0 + piece.m0 + r) * p.ldx : nullptr;
    quantize_row(plan.format, row, p.K, MR, r, plan.x + piece.at * plan.x_per_row);
  }
}

void run_chunk(const Exec& exec, Plan& plan, int64_t rows) {
  plan_rows(plan, rows);
  plan_tasks(plan, exec.pool->n_threads());
  plan.x = static_cast<char*>(call_workspace(static_cast<size_t>(plan.rows_packed * plan.x_per_row)));
  if (rows * plan.p.K < kQuantizeMin) {
    for (int64_t i = 0; i < plan.n_pieces; ++i) quantize_piece(plan, i);
  } else {
    exec.pool->parallel_for(plan.n_pieces, [&](int64_t i) { quantize_piece(plan, i); });
  }
  exec.pool->parallel_for(plan.grid.tasks(), [&](int64_t task) { run_task(plan, task); });
}

}  // namespace

void int8_matmul(const Exec& exec, const MatmulParams& p) {
  Plan plan;
  plan.p = p;
  plan.format = format_of(p.w_dtype);
  plan.kernels = block_of(p.w_dtype).elements == 32 ? &int8_kernels_legacy(p.w_dtype) : &int8_kernels_k(p.w_dtype);
  plan.w_stride = int8_panel_bytes(p.w_dtype, p.K);
  plan.x_per_row = p.K / 32 * plan.format.x_bytes();
  const int64_t fit = kChunkBytes / plan.x_per_row / kInt8MaxRows * kInt8MaxRows;
  const int64_t chunk = min(kMaxChunk, max(2 * kInt8MaxRows, fit));
  for (int64_t m0 = 0; m0 < p.M; m0 += chunk) {
    plan.m0 = m0;
    run_chunk(exec, plan, min(chunk, p.M - m0));
  }
}

}  // namespace krait::KRAIT_ISA
