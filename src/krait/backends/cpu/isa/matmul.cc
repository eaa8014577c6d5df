// Driver of the matmul: packs activations, cuts the output into tasks, walks a task in tiles.
#include "krait/backends/cpu/isa/int8_tile.h"
#include "krait/backends/cpu/isa/matmul_blocks.h"
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

struct Plan {
  MatmulParams p;
  const TileKernels* tiles;
  XForm form;
  int64_t w_stride;   // bytes of a panel
  int64_t x_per_row;  // elements of a packed row
  int64_t m0;         // first row of the chunk
  const float* x;     // packed chunk
  Piece pieces[most_pieces(kRowChunk)];
  Pieces cut;
  Grid grid;
};

// Many rows have pieces enough to share out.
void plan_tasks(Plan& plan, int64_t threads) {
  plan.grid = make_grid(ceil_div(plan.p.N, kPanel), plan.cut.n, threads, kPanelsPerTask,
                        plan.cut.rows_packed <= kMaxRows ? 1 : kPanelsPerTask, plan.cut.rows_packed * plan.p.K * kPanel,
                        kTaskMin);
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

// Tiles read their panels side by side, a stream each. Short streams end before the processor follows them: the panels
// of a tile, which lie one after the other, are first read as a single stream (16 KB at most, half of L1).
constexpr int64_t kShortPanel = 2048;

void run_task(const Plan& plan, int64_t task) {
  const MatmulParams& p = plan.p;
  const int64_t w_per_k = p.w_dtype == DType::kF32 ? 4 * kPanel : 2 * kPanel;
  const int64_t block = plan.cut.rows_packed <= 2 ? p.K : kBlockK;
  for (int64_t k0 = 0; k0 < p.K; k0 += block) {
    const int64_t k = min(block, p.K - k0);
    const Block b{plan.tiles,
                  plan.x,
                  plan.x_per_row,
                  x_elements(plan.form, k0),
                  static_cast<const char*>(p.w) + k0 * w_per_k,
                  plan.w_stride,
                  kShortPanel,
                  k,
                  k0 != 0,
                  k0 + k == p.K ? p.bias : nullptr,
                  p.y + plan.m0 * p.ldy,
                  p.ldy,
                  p.N};
    run_block(b, plan.pieces + plan.grid.first_piece(task), plan.pieces + plan.grid.end_piece(task),
              plan.grid.first_panel(task), plan.grid.end_panel(task));
  }
}

void run_chunk(const Exec& exec, Plan& plan, int64_t rows) {
  const MatmulParams& p = plan.p;
  plan.cut = cut_rows(rows, plan.pieces);
  plan_tasks(plan, exec.pool->n_threads());
  const float* x = p.x + plan.m0 * p.ldx;
  if (rows == 1 && plan.form == XForm::kF32) {
    plan.x = x;
  } else {
    const auto bytes = static_cast<size_t>(plan.cut.rows_packed * plan.x_per_row) * 4;
    auto* packed = static_cast<float*>(call_workspace(bytes));
    plan.x = packed;
    auto pack = [&](int64_t i) {
      const Piece& piece = plan.pieces[i];
      pack_x(plan.form, x + piece.m0 * p.ldx, p.ldx, piece.rows, p.K, kClassRows[piece.cls],
             packed + piece.at * plan.x_per_row);
    };
    if (rows * p.K < kTaskMin / 2) {
      for (int64_t i = 0; i < plan.cut.n; ++i) pack(i);
    } else {
      exec.pool->parallel_for(plan.cut.n, pack);
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
