// krait bench: prefill and decode speed of a model, and where it goes; krait bench roofline: what the machine can do.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "bench_run.h"
#include "json_out.h"
#include "krait/backends/cpu/cpu_backend.h"
#include "krait/core/error.h"
#include "krait/text/utf8.h"
#include "session.h"

namespace krait::cli {
namespace {

using nlohmann::ordered_json;

struct Args {
  ModelArgs model;
  BenchPlan plan;
  bool json = false, no_roofline = false;
};

constexpr int64_t kMostTokens = int64_t{1} << 26;  // ids of a run, made before it: 256 MiB
constexpr int64_t kMostBatch = 4096, kMostRepeats = 100000, kMostChunk = 65536;

// `c` tells what was given: options that the rest makes meaningless are refused (trap G6).
void check(const Args& a, const Command& c) {
  const auto in_range = [](const std::vector<int64_t>& v, int64_t least, int64_t most, const char* what) {
    for (const int64_t x : v) {
      if (x < least || x > most) {
        fail_usage(std::string("[bench] ") + what + " is " + std::to_string(x) + ", expected " + std::to_string(least) +
                   " to " + std::to_string(most));
      }
    }
  };
  const BenchPlan& p = a.plan;
  in_range(p.prompts, 0, kMostTokens, "-p");
  in_range(p.decodes, 0, kMostTokens, "-n");
  in_range(p.batches, 1, kMostBatch, "-b");
  in_range(p.depths, 0, kMostTokens, "-d");
  in_range({p.repeats}, 1, kMostRepeats, "-r");
  in_range({p.chunk}, 1, kMostChunk, "--chunk");
  const int64_t steps = std::ranges::max(p.decodes), batch = std::ranges::max(p.batches);
  if (steps * batch > kMostTokens) {
    fail_usage("[bench] -n " + std::to_string(steps) + " of -b " + std::to_string(batch) + " sequences are " +
               std::to_string(steps * batch) + " tokens, expected at most " + std::to_string(kMostTokens));
  }
  const auto none = [](const std::vector<int64_t>& v) {
    return std::ranges::all_of(v, [](int64_t n) { return n == 0; });
  };
  if (none(p.prompts) && none(p.decodes)) fail_usage("[bench] with -p 0 and -n 0 there is nothing to measure");
  if (none(p.decodes) && c.given("--batch")) fail_usage("[bench] -b has no effect: with -n 0 nothing is decoded");
  if (none(p.prompts) && none(p.depths) && c.given("--chunk")) {
    fail_usage("[bench] --chunk has no effect: with -p 0 and no -d no prompt is read");
  }
}

ordered_json to_json(const Roofline& r) {
  return {{"f32_gflops", r.f32_gflops},
          {"bf16_gflops", r.bf16_gflops},
          {"int8_gops", r.int8_gops},
          {"read_gb_per_s", r.read_gb_per_s},
          {"copy_gb_per_s", r.copy_gb_per_s}};
}

std::string one_line(const Roofline& r) {
  char s[160];
  std::snprintf(s, sizeof s, "peak f32 %.0f, bf16 %.0f GFLOP/s, int8 %.0f Gop/s; read %.1f, copy %.1f GB/s",
                r.f32_gflops, r.bf16_gflops, r.int8_gops, r.read_gb_per_s, r.copy_gb_per_s);
  return s;
}

// A kernel's part in a run: its share of the time, and of the bound.
struct OpRow {
  std::string name;
  double calls, microseconds;  // a pass
  double share, gb_per_s, gflops;
  double of_bound;  // 0: not known
};

// Kernels, dearest first, and last what is spent outside them.
std::vector<OpRow> op_rows(const Model& m, const BenchRow& r) {
  std::vector<OpRow> rows;
  const auto passes = static_cast<double>(r.passes);
  double rest = r.profiled_seconds;
  for (const OpCost& c : r.ops) {
    rest -= c.seconds;
    const double least = r.roof ? least_seconds(c, *r.roof, m.runtime().compute) : 0;
    rows.push_back({op_name(m, c), static_cast<double>(c.calls) / passes, 1e6 * c.seconds / passes,
                    c.seconds / r.profiled_seconds, 1e-9 * c.bytes / c.seconds, 1e-9 * c.flops / c.seconds,
                    least / c.seconds});
  }
  rows.push_back({"outside kernels", 1, 1e6 * rest / passes, rest / r.profiled_seconds, 0, 0, 0});
  return rows;
}

void print_rows(const Args& a, const Session& s, const std::vector<BenchRow>& rows) {
  const auto known = [](double v) { return v > 0 ? ordered_json(v) : ordered_json(nullptr); };
  ordered_json j;
  j["model"] = s.loaded.checkpoint->path().string();
  j["parameters"] = s.model().param_count();
  j["weight_bytes"] = s.model().resident_bytes();
  j["state_bytes"] = SlotStore::bytes_per_slot(s.model().state_specs());
  j["cpu"] = cpu_description();
  j["kernels"] = s.model().runtime().kernels->name;
  j["threads"] = s.pool->n_threads();
  j["compute"] = a.model.compute;
  j["rows"] = ordered_json::array();
  for (const BenchRow& r : rows) {
    ordered_json row = {{"test", r.test},
                        {"tokens_per_second", r.best()},
                        {"mean", r.mean()},
                        {"deviation", r.deviation()},
                        {"bound", known(r.bound)},
                        {"roofline_share", known(r.bound > 0 ? r.best() / r.bound : 0)},
                        {"fits_in_cache", r.fits_in_cache}};
    if (r.roof) row["roofline"] = to_json(*r.roof);
    if (!r.ops.empty()) row["profile"] = ordered_json::array();
    if (!r.ops.empty()) {
      for (const OpRow& o : op_rows(s.model(), r)) {
        row["profile"].push_back({{"op", o.name},
                                  {"calls", o.calls},
                                  {"microseconds", o.microseconds},
                                  {"share", o.share},
                                  {"gb_per_s", known(o.gb_per_s)},
                                  {"gflops", known(o.gflops)},
                                  {"of_bound", known(o.of_bound)}});
      }
    }
    j["rows"].push_back(std::move(row));
  }
  print_json(j);
}

std::string cell(double v, const char* format) {
  char s[32];
  std::snprintf(s, sizeof s, format, v);
  return v > 0 ? s : "";
}

void print_profile(const Model& m, const BenchRow& r) {
  std::printf("\n%s, a pass of %.0f µs\n\n", r.test.c_str(), 1e6 * r.profiled_seconds / static_cast<double>(r.passes));
  std::printf("| %-30s | %6s | %10s | %7s | %7s | %8s | %8s |\n", "kernel", "calls", "us", "share", "GB/s", "GFLOP/s",
              "of bound");
  std::printf("|:-------------------------------|-------:|-----------:|--------:|--------:|---------:|---------:|\n");
  for (const OpRow& o : op_rows(m, r)) {
    std::printf("| %-30s | %6.0f | %10.1f | %6.1f%% | %7s | %8s | %8s |\n", o.name.c_str(), o.calls, o.microseconds,
                100 * o.share, cell(o.gb_per_s, "%.1f").c_str(), cell(o.gflops, "%.1f").c_str(),
                cell(100 * o.of_bound, "%.0f%%").c_str());
  }
}

// Faster than memory allows, and why.
bool in_cache(const BenchRow& r) { return r.fits_in_cache && r.bound > 0 && r.best() > r.bound; }

void print_table(const Args& a, const Session& s, const std::vector<BenchRow>& rows) {
  std::printf("%s, %d thread(s), %s, compute %s\n", s.model().runtime().kernels->name, s.pool->n_threads(),
              text::escape_controls(s.loaded.checkpoint->path().string()).c_str(), a.model.compute.c_str());
  std::optional<Roofline> roof;
  for (const BenchRow& r : rows) {
    if (r.roof) roof = roof ? better(*roof, *r.roof) : *r.roof;
  }
  if (roof) std::printf("%s\n", one_line(*roof).c_str());
  std::printf("\n| %-18s | %12s | %20s | %8s |\n", "test", "best tok/s", "mean tok/s", "of bound");
  std::printf("|:-------------------|-------------:|---------------------:|---------:|\n");
  for (const BenchRow& r : rows) {
    char mean[48];
    std::snprintf(mean, sizeof mean, "%.1f ± %.1f", r.mean(), r.deviation());
    std::printf("| %-18s | %12.1f | %21s | %8s |\n", r.test.c_str(), r.best(), mean,
                cell(r.bound > 0 ? 100 * r.best() / r.bound : 0, in_cache(r) ? "%.1f%%*" : "%.1f%%").c_str());
  }
  if (std::ranges::any_of(rows, in_cache)) {
    std::printf("\n* weights and states fit in the last cache (%lld MiB), and the bound reads them from memory\n",
                static_cast<long long>(last_cache_bytes() >> 20));
  }
  for (const BenchRow& r : rows) {
    if (!r.ops.empty()) print_profile(s.model(), r);
  }
}

int bench(Args& a, const Command& c) {
  check(a, c);
  a.plan.roofline = !a.no_roofline;
  if (a.plan.profile) a.model.wrap = profiled;
  const Session s = open_session(a.model, NeedTokenizer::kNo);
  const std::vector<BenchRow> rows = run_bench(a.plan, s.model());
  if (a.json) {
    print_rows(a, s, rows);
  } else {
    print_table(a, s, rows);
  }
  return 0;
}

int roofline(int64_t threads, bool json) {
  const auto pool = make_pool(threads);
  const Roofline r = measure_roofline(*pool);
  if (json) {
    ordered_json j = {{"cpu", cpu_description()}, {"threads", pool->n_threads()}};
    j.update(to_json(r));
    print_json(j);
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
  Command c = root.subcommand("bench",
                              "Measure prefill (pp) and decode (tg) speed; 'bench roofline': the machine's limits; "
                              "'bench serve': a running server; 'bench train': training steps");
  add_model_options(c, a->model, true, false, {.tokenizer = false});
  c.list("-p,--prompt", a->plan.prompts, "prompt lengths, 0: none");
  c.list("-n,--tokens", a->plan.decodes, "decode lengths, 0: none");
  c.list("-b,--batch", a->plan.batches, "sequences decoded together");
  c.list("-d,--depth", a->plan.depths, "tokens read before the measurement begins");
  c.option("-r,--repeats", a->plan.repeats, "repeats, after one that does not count");
  c.option("--chunk", a->plan.chunk, "tokens of a prompt read in one pass");
  c.flag("--profile", a->plan.profile, "show where a pass goes, kernel by kernel");
  c.flag("--no-roofline", a->no_roofline, "do not measure the machine's limits; the share of them is then not known");
  c.flag("--json", a->json,
         "print JSON: rows[] with test, tokens_per_second (the best), mean, deviation, roofline_share, fits_in_cache");
  c.footer(
      "pp512: a prompt of 512 tokens; tg128: 128 tokens one by one; tg64x16: 64 tokens each of 16 sequences together;\n"
      "@d8192: after 8192 tokens. The bound of a pass is its matmuls at the measured arithmetic peak or its weights\n"
      "and states at the measured read bandwidth, whichever is longer; limits are measured between the repeats,\n"
      "with the instructions of the kernel set that runs. 'bench roofline' measures those of the best set.");
  add_bench_serve(c);
  add_bench_train(c);
  c.run([a, c] {
    if (a->model.model != "roofline") return bench(*a, c);
    for (const char* o : {"--prompt", "--tokens", "--batch", "--depth", "--repeats", "--chunk", "--profile",
                          "--no-roofline", "--compute", "--weights", "--kernels"}) {
      if (c.given(o)) fail_usage(std::string("[bench] ") + o + " has no effect on 'roofline'");
    }
    return roofline(a->model.threads, a->json);
  });
}

}  // namespace krait::cli
