// Packing of weights and activations for the matmul (layouts: matmul_tile.h).
#pragma once
#include "krait/backends/cpu/isa/integers.h"
#include "krait/backends/cpu/isa/matmul_tile.h"
#include "krait/kernels/exec.h"
#include "krait/kernels/matmul.h"

namespace krait::KRAIT_ISA {

// How activations enter the products.
enum class XForm { kF32, kRounded, kPairs, kSplitPairs };  // f32; f32 rounded to bf16; bf16 pairs; (high, low) pairs

// 4-byte elements of one packed row of K activations.
constexpr int64_t x_elements(XForm form, int64_t K) {
  return form == XForm::kSplitPairs ? (K + 1) / 2 * 2 : form == XForm::kPairs ? (K + 1) / 2 : K;
}

// Rows [rows, K] of x -> one panel of MR >= rows rows; the missing ones become zero.
void pack_x(XForm form, const float* x, int64_t ldx, int rows, int64_t K, int MR, float* panel);

// dst[c][r] = src[r][c] for 4-byte elements; src rows are `ld_src` bytes apart, dst rows `ld_dst` elements.
void transpose(const char* src, int64_t ld_src, int64_t rows, int64_t cols, float* dst, int64_t ld_dst);

// pack(i, rows) for each panel of a weight, which says whether all values were finite. Threads work far apart, each in
// a stretch of its own: two that first touch the same huge page would both clear it, and one of them in vain.
template <class F>
void pack_panels(const Exec& exec, const PackWeightParams& p, int64_t panel_bytes, F pack) {
  constexpr int64_t kTaskBytes = 128 << 10;
  const int64_t panels = ceil_div(p.N, kPanel), threads = exec.pool->n_threads();
  const int64_t per_task = max(1, kTaskBytes / panel_bytes);
  const int64_t stretch = ceil_div(ceil_div(panels, per_task), threads);  // tasks
  exec.pool->parallel_for(stretch * threads, [&](int64_t task) {
    const int64_t first = (task % threads * stretch + task / threads) * per_task;
    bool finite = true;
    for (int64_t i = first; i < min(first + per_task, panels); ++i) {
      finite = pack(i, min(p.N - i * kPanel, kPanel)) && finite;
    }
    if (!finite && p.not_finite != nullptr) __atomic_store_n(p.not_finite, true, __ATOMIC_RELAXED);
  });
}

}  // namespace krait::KRAIT_ISA
