// krait verify: the exactness contract, tested on this machine and this model, as a table.
#include "krait/infer/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "json_out.h"
#include "progress.h"
#include "session.h"
#include "terminal.h"

namespace krait::cli {
namespace {

using nlohmann::ordered_json;

struct Args {
  ModelArgs model;
  std::vector<std::string> weights;
  bool quick = false, json = false;
  int64_t length = 257, seed = 1;
};

struct Part {
  std::string weights;
  std::vector<VerifyRow> rows;
};

Part verify_weights(const Args& a, const std::string& weights) {
  ModelArgs as = a.model;
  as.weights = weights;
  const Session s = open_session(as, NeedTokenizer::kNo);
  VerifyOptions o;
  o.quick = a.quick;
  o.length = a.length;
  o.seed = static_cast<uint64_t>(a.seed);
  o.folder = std::filesystem::temp_directory_path();
  if (s.pool->n_threads() > 2) o.threads.push_back(s.pool->n_threads());
  std::unique_ptr<ProgressBar> bar;
  o.progress = [&](int64_t, int64_t all) {
    if (!bar) bar = std::make_unique<ProgressBar>("verify " + weights, all, "cases");
    bar->advance(1);
    Signals::check();
  };
  const Signals signals;
  return {weights, verify(s.model(), o)};
}

void print_table(const std::vector<Part>& parts) {
  const auto line = [](const std::string& w, const std::string& check, const std::string& cases,
                       const std::string& result) {
    std::printf("%s\n", fmt::format("| {:7} | {:38} | {:>5} | {:20} |", w, check, cases, result).c_str());
  };
  line("weights", "check", "cases", "result");
  std::printf("|%s|%s|%s|%s|\n", std::string(9, '-').c_str(), std::string(40, '-').c_str(),
              (std::string(6, '-') + ":").c_str(), std::string(22, '-').c_str());
  for (const Part& p : parts) {
    for (const VerifyRow& r : p.rows) {
      const std::string result =
          r.different == 0 ? "bit-equal" : fmt::format("{} DIFFER, first {}", r.different, r.first);
      line(p.weights, r.check, std::to_string(r.cases), result);
    }
  }
}

ordered_json to_json(const std::vector<Part>& parts) {
  ordered_json rows = ordered_json::array();
  for (const Part& p : parts) {
    for (const VerifyRow& r : p.rows) {
      rows.push_back({{"weights", p.weights},
                      {"check", r.check},
                      {"cases", r.cases},
                      {"different", r.different},
                      {"first", r.different == 0 ? ordered_json(nullptr) : ordered_json(r.first)}});
    }
  }
  return rows;
}

// The types to hold the weights in: those that a float checkpoint may run in, or as they are if some are quantized.
std::vector<std::string> usual_weights(const std::string& model) {
  const auto c = io::Checkpoint::open(model.empty() ? shipped_model() : model);
  const bool blocks =
      std::ranges::any_of(c->names(), [&](const std::string& name) { return is_block_type(c->tensor(name).dtype()); });
  return blocks ? std::vector<std::string>{"file"} : std::vector<std::string>{"f32", "bf16", "f16"};
}

int run_verify(const Args& a) {
  const std::vector<std::string> all = a.weights.empty() ? usual_weights(a.model.model) : a.weights;
  const auto start = std::chrono::steady_clock::now();
  std::vector<Part> parts;
  parts.reserve(all.size());
  for (const std::string& w : all) parts.push_back(verify_weights(a, w));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  int64_t different = 0, cases = 0;
  for (const Part& p : parts) {
    for (const VerifyRow& r : p.rows) {
      different += r.different;
      cases += r.cases;
    }
  }
  if (a.json) {
    const ordered_json j = {{"model", a.model.model.empty() ? shipped_model() : a.model.model},
                            {"compute", a.model.compute},
                            {"seconds", seconds},
                            {"cases", cases},
                            {"different", different},
                            {"rows", to_json(parts)}};
    print_json(j);
  } else {
    print_table(parts);
    std::printf("\n%s\n", different == 0
                              ? fmt::format("all {} cases bit-equal ({:.1f} s)", cases, seconds).c_str()
                              : fmt::format("{} of {} cases DIFFER ({:.1f} s)", different, cases, seconds).c_str());
  }
  return different == 0 ? 0 : 1;
}

}  // namespace

void add_verify(Command& root) {
  auto a = std::make_shared<Args>();
  Command c = root.subcommand("verify", "Test the exactness contract on this machine and a model, as a table");
  add_model_options(c, a->model, true, false, {.tokenizer = false, .lora = true});
  c.flag("--quick", a->quick, "sample the splits, batches and points instead of trying all of them");
  c.option("--length", a->length, "tokens of the prompt that is split");
  c.option("--seed", a->seed, "of the random prompts and points");
  c.flag("--json", a->json, "print JSON: rows[] with weights, check, cases, different");
  c.footer(
      "Each check is made with weights held as f32, bf16 and f16, those of a quantized file as they are, or only as "
      "--weights says. Exit code 1 if a bit differs.");
  c.run([a, c] {
    if (c.given("--weights")) a->weights = {a->model.weights};
    return run_verify(*a);
  });
}

}  // namespace krait::cli
