// krait bench: prefill and decode speed of a model; krait bench roofline: what the machine can do.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

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
  bool json = false;
};

struct Row {
  std::string test;
  double tokens_per_second = 0;  // best of the repeats
  double spread = 0;             // (best − worst) / best
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

Row measure(const Args& a, const std::string& test, const std::function<double()>& tokens_per_second) {
  tokens_per_second();  // warm up
  Row row{test, 0, 0};
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

std::vector<Row> run_all(const Args& a, const Model& m) {
  std::vector<Row> rows;
  SlotStore states(m.state_specs(), *std::ranges::max_element(a.batches));
  for (const int64_t depth : a.depths) {
    for (const int64_t n : a.prompts) {
      if (n == 0) continue;
      rows.push_back(measure(a, at_depth("pp" + std::to_string(n), depth), [&] {
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
        rows.push_back(measure(a, at_depth(std::move(test), depth), [&] {
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

int bench(const Args& a) {
  check(a);
  const Session s = open_session(a.model, NeedTokenizer::kNo);
  const std::vector<Row> rows = run_all(a, s.model());
  if (a.json) {
    ordered_json j;
    j["model"] = s.loaded.checkpoint->path().string();
    j["parameters"] = s.model().param_count();
    j["kernels"] = s.model().runtime().kernels->name;
    j["threads"] = s.pool->n_threads();
    j["compute"] = a.model.compute;
    j["rows"] = ordered_json::array();
    for (const Row& r : rows) {
      j["rows"].push_back({{"test", r.test}, {"tokens_per_second", r.tokens_per_second}, {"spread", r.spread}});
    }
    std::printf("%s\n", j.dump(2).c_str());
    return 0;
  }
  std::printf("%s, %d threads, %s, compute %s\n\n", s.model().runtime().kernels->name, s.pool->n_threads(),
              s.loaded.checkpoint->path().string().c_str(), a.model.compute.c_str());
  std::printf("| %-18s | %12s | %7s |\n|%s:|%s:|%s:|\n", "test", "tokens/s", "spread", std::string(19, '-').c_str(),
              std::string(13, '-').c_str(), std::string(8, '-').c_str());
  for (const Row& r : rows)
    std::printf("| %-18s | %12.1f | %6.1f%% |\n", r.test.c_str(), r.tokens_per_second, 100 * r.spread);
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
  c.flag("--json", a->json, "print JSON: rows[] with test and tokens_per_second");
  c.run([a] {
    if (a->model.model == "roofline") return roofline(a->model.threads, a->json);
    return bench(*a);
  });
}

}  // namespace krait::cli
