#include "bench_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>

#include "krait/core/rng.h"
#include "krait/models/slot_store.h"

namespace krait::cli {
namespace {

using Clock = std::chrono::steady_clock;

// Reads n tokens into `slot` in chunks, logits after the last alone.
void prefill(const Model& m, SlotStore& states, int32_t slot, int64_t n, int64_t chunk, uint64_t seed) {
  const std::vector<int32_t> ids = random_integers(n, m.vocab_size(), Rng(seed));
  for (int64_t at = 0; at < n; at += chunk) {
    const int64_t length = std::min(chunk, n - at);
    const int64_t last = length - 1;
    const bool end = at + length == n;
    m.forward(std::span(ids).subspan(static_cast<size_t>(at), static_cast<size_t>(length)), SeqSpans::one(length, slot),
              states, end ? std::span<const int64_t>(&last, 1) : std::span<const int64_t>());
  }
}

// n steps of `batch` sequences together.
void decode(const Model& m, SlotStore& states, int64_t n, int64_t batch, uint64_t seed) {
  SeqSpans spans;
  for (int64_t b = 0; b < batch; ++b) spans.add(1, static_cast<int32_t>(b));
  std::vector<int64_t> rows(static_cast<size_t>(batch));
  std::iota(rows.begin(), rows.end(), 0);
  const std::vector<int32_t> ids = random_integers(n * batch, m.vocab_size(), Rng(seed));
  for (int64_t i = 0; i < n; ++i) {
    m.forward(std::span(ids).subspan(static_cast<size_t>(i * batch), static_cast<size_t>(batch)), spans, states, rows);
  }
}

// Weights and states of a pass.
int64_t bytes_of_pass(const Model& m, int64_t states) {
  return m.resident_bytes() + states * SlotStore::bytes_per_slot(m.state_specs());
}

// The least seconds a pass over `tokens` can take: the matmuls at the peak of their arithmetic, or the weights once and
// the states read and written at the measured bandwidth, whichever is longer. Without logits the head is not touched.
double pass_seconds(const Model& m, const Roofline& roof, int64_t tokens, int64_t logit_rows, int64_t states) {
  double arithmetic = 0, bytes = static_cast<double>(m.resident_bytes());
  for (const ParamSpec& p : model_params(m.spec())) {
    const bool tied_head = p.role == ParamRole::kTable && m.spec().tie_embeddings;
    if (p.role != ParamRole::kMatmul && !tied_head) continue;
    const DType dtype = m.params().get(p.name).value.dtype();
    const bool head = tied_head || p.name == kHeadName;
    const int64_t rows = head ? logit_rows : tokens;
    if (rows == 0) {
      bytes -= static_cast<double>(m.runtime().kernels->packed_weight_bytes(dtype, p.shape[0], p.shape[1]));
      continue;
    }
    arithmetic +=
        2.0 * static_cast<double>(rows * p.shape.numel()) / (1e9 * arithmetic_peak(roof, dtype, m.runtime().compute));
  }
  bytes += static_cast<double>(2 * states * SlotStore::bytes_per_slot(m.state_specs()));
  return std::max(arithmetic, bytes / (1e9 * roof.read_gb_per_s));
}

// What is timed: `prepare` is not, `run` is.
struct Test {
  std::string name;
  int64_t tokens;                                  // in all
  int64_t passes;                                  // forward passes
  int64_t touched;                                 // bytes of weights and states of a pass
  std::function<double(const Roofline&)> seconds;  // the least that the run can take
  std::function<void()> prepare, run;
};

class Bench {
 public:
  Bench(const BenchPlan& plan, const Model& m) : plan_(plan) {
    if (plan.roofline) meter_ = std::make_unique<RooflineMeter>(*m.runtime().pool, m.runtime().kernels->name);
  }

  BenchRow measure(const Test& t) {
    BenchRow row;
    row.test = t.name;
    row.passes = t.passes;
    row.fits_in_cache = t.touched <= last_cache_bytes();
    timed(t);  // warm up
    look(row);
    for (int64_t r = 0; r < plan_.repeats; ++r) {
      std::vector<OpCost> ops;
      const double seconds = timed(t, plan_.profile ? &ops : nullptr);
      if (r == 0 || static_cast<double>(t.tokens) / seconds > row.best()) {
        row.profiled_seconds = seconds;
        row.ops = std::move(ops);
      }
      row.runs.push_back(static_cast<double>(t.tokens) / seconds);
      look(row);
    }
    if (row.roof) row.bound = static_cast<double>(t.tokens) / t.seconds(*row.roof);
    return row;
  }

 private:
  static double timed(const Test& t, std::vector<OpCost>* ops = nullptr) {
    t.prepare();
    if (ops != nullptr) start_profile();
    const auto start = Clock::now();
    t.run();
    const std::chrono::duration<double> seconds = Clock::now() - start;
    if (ops != nullptr) *ops = stop_profile();
    return seconds.count();
  }

  void look(BenchRow& row) {
    if (!meter_) return;
    const Roofline now = meter_->sample();
    row.roof = row.roof ? better(*row.roof, now) : now;
  }

  const BenchPlan& plan_;
  std::unique_ptr<RooflineMeter> meter_;
};

// The least seconds for a prompt of n tokens in chunks, the last of which has what is left, and logits.
double prompt_seconds(const Model& m, const Roofline& roof, int64_t n, int64_t chunk) {
  const int64_t whole = (n - 1) / chunk;
  const double before = whole > 0 ? static_cast<double>(whole) * pass_seconds(m, roof, chunk, 0, 1) : 0;
  return before + pass_seconds(m, roof, n - whole * chunk, 1, 1);
}

double decode_seconds(const Model& m, const Roofline& roof, int64_t n, int64_t batch) {
  return static_cast<double>(n) * pass_seconds(m, roof, batch, batch, batch);
}

std::string at_depth(const std::string& test, int64_t depth) {
  return depth > 0 ? test + "@d" + std::to_string(depth) : test;
}

}  // namespace

double BenchRow::best() const { return *std::ranges::max_element(runs); }

double BenchRow::mean() const {
  return std::accumulate(runs.begin(), runs.end(), 0.0) / static_cast<double>(runs.size());
}

double BenchRow::deviation() const {
  if (runs.size() < 2) return 0;
  double squares = 0;
  for (const double r : runs) squares += (r - mean()) * (r - mean());
  return std::sqrt(squares / static_cast<double>(runs.size() - 1));
}

std::vector<BenchRow> run_bench(const BenchPlan& plan, const Model& m) {
  std::vector<BenchRow> rows;
  Bench bench(plan, m);
  const int64_t most = *std::ranges::max_element(plan.batches);
  SlotStore states(m.state_specs(), most + 1);  // the last slot: the state that every run begins with
  const auto begin = [&](int64_t batch) {
    for (int64_t b = 0; b < batch; ++b) states.copy_slot(most, b);
  };
  for (const int64_t depth : plan.depths) {
    m.reset_state(states, most);
    prefill(m, states, static_cast<int32_t>(most), depth, plan.chunk, 1);
    for (const int64_t n : plan.prompts) {
      if (n == 0) continue;
      const int64_t passes = (n + plan.chunk - 1) / plan.chunk;
      rows.push_back(bench.measure({at_depth("pp" + std::to_string(n), depth), n, passes, bytes_of_pass(m, 1),
                                    [&](const Roofline& roof) { return prompt_seconds(m, roof, n, plan.chunk); },
                                    [&] { begin(1); }, [&] { prefill(m, states, 0, n, plan.chunk, 2); }}));
    }
    for (const int64_t n : plan.decodes) {
      for (const int64_t batch : plan.batches) {
        if (n == 0) continue;
        const std::string name = "tg" + std::to_string(n) + (batch > 1 ? "x" + std::to_string(batch) : "");
        rows.push_back(bench.measure({at_depth(name, depth), n * batch, n, bytes_of_pass(m, batch),
                                      [&](const Roofline& roof) { return decode_seconds(m, roof, n, batch); },
                                      [&] { begin(batch); }, [&] { decode(m, states, n, batch, 3); }}));
      }
    }
  }
  return rows;
}

}  // namespace krait::cli
