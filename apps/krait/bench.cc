// krait bench: prefill and decode speed of a model; krait bench roofline: what the machine can do.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "krait/backends/cpu/cpu_backend.h"
#include "krait/backends/cpu/roofline.h"
#include "krait/core/error.h"
#include "krait/core/rng.h"
#include "session.h"

namespace krait::cli {
namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct Args {
  ModelArgs model;
  std::vector<int64_t> prompts{512}, decodes{128}, batches{1}, depths{0};
  int64_t repeats = 3;
  bool json = false, no_roofline = false;
};

struct Row {
  std::string test;
  double tokens_per_second = 0;  // best of the repeats
  double spread = 0;             // (best − worst) / best
  double bound = 0;              // tokens a second that the machine's limits allow; 0: not known
};

// Random ids, below the vocabulary; a function of the seed alone.
std::vector<int32_t> random_ids(const Model& m, int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> ids(static_cast<size_t>(n));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(m.vocab_size())));
  return ids;
}

// Reads n tokens into `slot` in chunks, logits after the last alone.
void prefill(const Model& m, SlotStore& states, int32_t slot, int64_t n, uint64_t seed) {
  constexpr int64_t kChunk = 512;
  const std::vector<int32_t> ids = random_ids(m, n, seed);
  for (int64_t at = 0; at < n; at += kChunk) {
    const int64_t length = std::min(kChunk, n - at);
    const int64_t last = length - 1;
    const bool end = at + length == n;
    m.forward(std::span(ids).subspan(static_cast<size_t>(at), static_cast<size_t>(length)), SeqSpans::one(length, slot),
              states, end ? std::span<const int64_t>(&last, 1) : std::span<const int64_t>());
  }
}

// The least seconds a pass over `tokens` can take: the matmuls at the peak of their arithmetic, or the weights once and
// the states read and written at the measured bandwidth, whichever is longer.
double pass_seconds(const Model& m, const Roofline& roof, int64_t tokens, int64_t logit_rows, int64_t states) {
  double arithmetic = 0;
  for (const ParamSpec& p : model_params(m.spec())) {
    const bool tied_head = p.role == ParamRole::kTable && m.spec().tie_embeddings;
    if (p.role != ParamRole::kMatmul && !tied_head) continue;
    const bool bf16 = m.params().get(p.name).value.dtype() == DType::kBF16;
    const Compute compute = bf16 ? m.runtime().compute : Compute::kF32;
    const double peak = compute == Compute::kF32      ? roof.f32_gflops
                        : compute == Compute::kBF16x2 ? std::max(roof.f32_gflops, roof.bf16_gflops / 2)
                                                      : std::max(roof.f32_gflops, roof.bf16_gflops);
    const bool head = tied_head || p.name == kHeadName;
    const int64_t rows = head ? logit_rows : tokens;
    arithmetic += 2.0 * static_cast<double>(rows * p.shape.numel()) / (1e9 * peak);
  }
  const int64_t state_bytes = SlotStore::bytes_per_slot(m.state_specs());
  const double bytes = static_cast<double>(m.resident_bytes() + 2 * states * state_bytes);
  return std::max(arithmetic, bytes / (1e9 * roof.read_gb_per_s));
}

// n steps of `batch` sequences together; returns seconds.
double decode(const Model& m, SlotStore& states, int64_t n, int64_t batch, uint64_t seed) {
  SeqSpans spans;
  std::vector<int64_t> rows;
  for (int64_t b = 0; b < batch; ++b) {
    spans.add(1, static_cast<int32_t>(b));
    rows.push_back(b);
  }
  const std::vector<int32_t> ids = random_ids(m, n * batch, seed);
  const auto start = Clock::now();
  for (int64_t i = 0; i < n; ++i) {
    m.forward(std::span(ids).subspan(static_cast<size_t>(i * batch), static_cast<size_t>(batch)), spans, states, rows);
  }
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Row measure(const Args& a, const std::string& test, double bound, const std::function<double()>& tokens_per_second) {
  tokens_per_second();  // warm up
  Row row{test, 0, 0, bound};
  double worst = 1e300;
  for (int64_t r = 0; r < a.repeats; ++r) {
    const double v = tokens_per_second();
    row.tokens_per_second = std::max(row.tokens_per_second, v);
    worst = std::min(worst, v);
  }
  row.spread = (row.tokens_per_second - worst) / row.tokens_per_second;
  return row;
}

std::string at_depth(std::string test, int64_t depth) { return depth > 0 ? test + "@d" + std::to_string(depth) : test; }

std::vector<Row> run_all(const Args& a, const Model& m, const std::optional<Roofline>& roof) {
  std::vector<Row> rows;
  const auto bound = [&](int64_t tokens, int64_t logit_rows, int64_t states) {
    return roof ? static_cast<double>(tokens) / pass_seconds(m, *roof, tokens, logit_rows, states) : 0;
  };
  SlotStore states(m.state_specs(), *std::ranges::max_element(a.batches));
  for (const int64_t depth : a.depths) {
    for (const int64_t n : a.prompts) {
      if (n == 0) continue;
      rows.push_back(measure(a, at_depth("pp" + std::to_string(n), depth), bound(n, 1, 1), [&] {
        m.reset_state(states, 0);
        prefill(m, states, 0, depth, 1);
        const auto start = Clock::now();
        prefill(m, states, 0, n, 2);
        return static_cast<double>(n) / std::chrono::duration<double>(Clock::now() - start).count();
      }));
    }
    for (const int64_t n : a.decodes) {
      for (const int64_t batch : a.batches) {
        if (n == 0) continue;
        std::string test = "tg" + std::to_string(n) + (batch > 1 ? "x" + std::to_string(batch) : "");
        rows.push_back(measure(a, at_depth(std::move(test), depth), bound(batch, batch, batch), [&] {
          for (int64_t b = 0; b < batch; ++b) {
            m.reset_state(states, b);
            prefill(m, states, static_cast<int32_t>(b), depth, 3);
          }
          return static_cast<double>(n * batch) / decode(m, states, n, batch, 4);
        }));
      }
    }
  }
  return rows;
}

void check(const Args& a) {
  const auto all_at_least = [](const std::vector<int64_t>& v, int64_t least, const char* what) {
    for (const int64_t x : v) {
      if (x < least) fail_usage(std::string("[bench] ") + what + " is " + std::to_string(x));
    }
  };
  all_at_least(a.prompts, 0, "-p");
  all_at_least(a.decodes, 0, "-n");
  all_at_least(a.batches, 1, "-b");
  all_at_least(a.depths, 0, "-d");
  all_at_least({a.repeats}, 1, "-r");
}

void print_json(const Args& a, const Session& s, const std::vector<Row>& rows) {
  ordered_json j;
  j["model"] = s.loaded.checkpoint->path().string();
  j["parameters"] = s.model().param_count();
  j["cpu"] = cpu_description();
  j["kernels"] = s.model().runtime().kernels->name;
  j["threads"] = s.pool->n_threads();
  j["compute"] = a.model.compute;
  j["rows"] = ordered_json::array();
  for (const Row& r : rows) {
    ordered_json row = {{"test", r.test}, {"tokens_per_second", r.tokens_per_second}, {"spread", r.spread}};
    row["roofline_share"] = r.bound > 0 ? ordered_json(r.tokens_per_second / r.bound) : ordered_json(nullptr);
    j["rows"].push_back(std::move(row));
  }
  std::printf("%s\n", j.dump(2).c_str());
}

void print_table(const Args& a, const Session& s, const std::vector<Row>& rows) {
  std::printf("%s, %d thread(s), %s, compute %s\n\n", s.model().runtime().kernels->name, s.pool->n_threads(),
              s.loaded.checkpoint->path().string().c_str(), a.model.compute.c_str());
  std::printf("| %-18s | %12s | %7s | %8s |\n", "test", "tokens/s", "spread", "of bound");
  std::printf("|%s:|%s:|%s:|%s:|\n", std::string(19, '-').c_str(), std::string(13, '-').c_str(),
              std::string(8, '-').c_str(), std::string(9, '-').c_str());
  for (const Row& r : rows) {
    std::printf("| %-18s | %12.1f | %6.1f%% |", r.test.c_str(), r.tokens_per_second, 100 * r.spread);
    if (r.bound > 0) {
      std::printf(" %7.1f%% |\n", 100 * r.tokens_per_second / r.bound);
    } else {
      std::printf(" %8s |\n", "");
    }
  }
}

int bench(const Args& a) {
  check(a);
  const Session s = open_session(a.model, NeedTokenizer::kNo);
  std::optional<Roofline> roof;
  if (!a.no_roofline) roof = measure_roofline(*s.pool);
  const std::vector<Row> rows = run_all(a, s.model(), roof);
  if (a.json) {
    print_json(a, s, rows);
  } else {
    print_table(a, s, rows);
  }
  return 0;
}

int roofline(int64_t threads, bool json) {
  const auto pool = make_pool(threads);
  const Roofline r = measure_roofline(*pool);
  if (json) {
    const ordered_json j = {{"cpu", cpu_description()},        {"threads", pool->n_threads()},
                            {"f32_gflops", r.f32_gflops},      {"bf16_gflops", r.bf16_gflops},
                            {"int8_gops", r.int8_gops},        {"read_gb_per_s", r.read_gb_per_s},
                            {"copy_gb_per_s", r.copy_gb_per_s}};
    std::printf("%s\n", j.dump(2).c_str());
    return 0;
  }
  std::printf("%s, %d thread(s)\n", cpu_description().c_str(), pool->n_threads());
  std::printf("peak f32   %8.1f GFLOP/s\npeak bf16  %8.1f GFLOP/s\npeak int8  %8.1f Gop/s\n", r.f32_gflops,
              r.bf16_gflops, r.int8_gops);
  std::printf("read       %8.1f GB/s\ncopy       %8.1f GB/s\n", r.read_gb_per_s, r.copy_gb_per_s);
  return 0;
}

}  // namespace

void add_bench(Command& root) {
  auto a = std::make_shared<Args>();
  Command c =
      root.subcommand("bench", "Measure prefill (pp) and decode (tg) speed; 'bench roofline': the machine's limits");
  add_model_options(c, a->model, true, false);
  c.list("-p,--prompt", a->prompts, "prompt lengths, 0: none");
  c.list("-n,--tokens", a->decodes, "decode lengths, 0: none");
  c.list("-b,--batch", a->batches, "sequences decoded together");
  c.list("-d,--depth", a->depths, "tokens read before the measurement begins");
  c.option("-r,--repeats", a->repeats, "repeats; the best is reported");
  c.flag("--no-roofline", a->no_roofline, "do not measure the machine's limits; the share of them is then not known");
  c.flag("--json", a->json, "print JSON: rows[] with test, tokens_per_second, spread and roofline_share");
  c.footer(
      "pp512: a prompt of 512 tokens; tg128: 128 tokens one by one; tg64x16: 64 tokens each of 16 sequences together;\n"
      "@d8192: after 8192 tokens. The bound of a pass is its matmuls at the measured arithmetic peak or its weights\n"
      "and states at the measured read bandwidth, whichever is longer.");
  c.run([a, c] {
    if (a->model.model != "roofline") return bench(*a);
    for (const char* o : {"--prompt", "--tokens", "--batch", "--depth", "--repeats", "--no-roofline", "--tokenizer",
                          "--compute", "--weights", "--kernels"}) {
      if (c.given(o)) fail_usage(std::string("[bench] ") + o + " has no effect on 'roofline'");
    }
    return roofline(a->model.threads, a->json);
  });
}

}  // namespace krait::cli
