#include "krait/ops/low_rank.h"

#include <fmt/format.h>

#include <algorithm>

#include "krait/core/error.h"
#include "krait/core/rng.h"
#include "krait/ops/backward.h"
#include "krait/ops/calls.h"

namespace krait {
namespace {

// y[t][c] = x[t][c] / (1 − p), or 0 with probability p; row t is row rows[t] of the step.
struct Mask {
  uint64_t seed, stream;
  float p;
  std::vector<int64_t> rows;  // [T]
};

void apply(const Exec& exec, const Mask& m, const Tensor& x, Tensor y, bool add) {
  const int64_t K = x.dim(1), quads = (K + 3) / 4;
  const auto below = static_cast<uint32_t>(static_cast<double>(m.p) * 0x1p32);
  const float scale = 1 / (1 - m.p);
  exec.pool->parallel_for(x.dim(0), [&](int64_t t) {
    const float* from = x.f32() + t * x.stride(0);
    float* to = y.f32() + t * y.stride(0);
    for (int64_t q = 0; q < quads; ++q) {
      const auto draw = philox(m.seed, m.stream, static_cast<uint64_t>(m.rows[static_cast<size_t>(t)] * quads + q));
      for (int64_t c = 4 * q; c < std::min(4 * q + 4, K); ++c) {
        const float kept = draw[static_cast<size_t>(c % 4)] < below ? 0.0F : from[c] * scale;
        to[c] = add ? to[c] + kept : kept;
      }
    }
  });
}

// The inputs of an adapter, some of them left out.
Tensor dropout(ForwardContext& ctx, const Tensor& x, const LowRank& a, const AdapterRun& run) {
  if (ctx.dropout == nullptr || a.dropout == 0) return x;
  Mask m{ctx.dropout->seed, a.stream * 0x9E3779B97F4A7C15U + ctx.dropout->step, a.dropout, {}};
  for (int64_t s = run.first_seq; s < run.first_seq + run.n_seqs; ++s) {
    for (int64_t i = 0; i < ctx.spans.length(s); ++i)
      m.rows.push_back(ctx.dropout->first_row[static_cast<size_t>(s)] + i);
  }
  Tensor y = Tensor::empty(x.shape());
  apply(ctx.exec(), m, x, y, false);
  if (ctx.training()) {
    ctx.tape->record(
        [&rt = ctx.runtime, &g = ctx.tape->gradients(), m, x, y] { apply(rt.exec(), m, g.of(y), g.of(x), true); });
  }
  return y;
}

// The sum is made in place: nothing needs y as it was.
void add_rows(ForwardContext& ctx, const Tensor& term, Tensor y) {
  run_add(ctx.runtime, term, y);
  if (ctx.training()) backward::copy(ctx, term, y);
}

void check_all_tokens(const ForwardContext& ctx, int64_t rows) {
  if (rows == ctx.spans.n_tokens()) return;
  throw Error(ErrorCode::kInternal,
              fmt::format("[low_rank] {} rows, the spans have {} tokens", rows, ctx.spans.n_tokens()));
}

}  // namespace

std::vector<AdapterRun> adapter_runs(const ForwardContext& ctx) {
  std::vector<AdapterRun> runs;
  for (int64_t s = 0; s < ctx.spans.n_seqs(); ++s) {
    const int32_t adapter = ctx.adapter(s);
    if (runs.empty() || runs.back().adapter != adapter) {
      runs.push_back({adapter, s, 0, ctx.spans.offset[static_cast<size_t>(s)], 0});
    }
    ++runs.back().n_seqs;
    runs.back().length += ctx.spans.length(s);
  }
  return runs;
}

void add_low_rank(ForwardContext& ctx, const Tensor& x, const Weight& w, Tensor& y) {
  check_all_tokens(ctx, x.dim(0));
  for (const AdapterRun& run : adapter_runs(ctx)) {
    const LowRank* a = w.low_rank(run.adapter);
    if (a == nullptr || run.length == 0) continue;
    const Tensor in = dropout(ctx, x.narrow(0, run.first, run.length), *a, run);
    add_rows(ctx, linear(ctx, linear(ctx, in, a->A), a->B), y.narrow(0, run.first, run.length));
  }
}

void add_low_rank(ForwardContext& ctx, std::span<const int32_t> ids,
                  std::span<const std::shared_ptr<const EmbeddingLowRank>> by_adapter, Tensor& y) {
  check_all_tokens(ctx, static_cast<int64_t>(ids.size()));
  for (const AdapterRun& run : adapter_runs(ctx)) {
    if (run.adapter < 0 || run.length == 0) continue;
    const auto& a = by_adapter[static_cast<size_t>(run.adapter)];
    if (!a) continue;
    const auto mine = ids.subspan(static_cast<size_t>(run.first), static_cast<size_t>(run.length));
    add_rows(ctx, linear(ctx, embed(ctx, a->A, mine), a->B), y.narrow(0, run.first, run.length));
  }
}

}  // namespace krait
