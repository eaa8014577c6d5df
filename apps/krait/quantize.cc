// krait quantize: any checkpoint -> a GGUF file of block types, chosen by rules, with a report of what that costs.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>

#include "gguf_vocab.h"
#include "krait/core/error.h"
#include "krait/infer/score.h"
#include "krait/io/atomic_file.h"
#include "krait/models/load.h"
#include "krait/quant/report.h"
#include "krait/text/utf8.h"
#include "progress.h"
#include "quantize_args.h"
#include "quantize_texts.h"
#include "session.h"
#include "terminal.h"

namespace krait::cli {
namespace {

using quant::ActivationStats;
using quant::PlannedTensor;

// What is quantized: the model's description and parameters, and what it takes to run it.
struct Source {
  std::shared_ptr<const io::Checkpoint> checkpoint;
  ModelSpec spec;
  ParamStore params;
  std::unique_ptr<ThreadPool> pool;
  Runtime runtime;
  std::unique_ptr<text::Tokenizer> tokenizer;  // read only if there is a text
};

Source open(const QuantizeArgs& a) {
  Source s;
  s.pool = make_pool(a.threads);
  ModelArgs m;
  m.backend = a.kernels;
  s.runtime = make_runtime(m, *s.pool);
  const SlowNotice notice("reading " + a.model);
  s.checkpoint = io::Checkpoint::open(a.model);
  const FamilyInfo& family = find_family(*s.checkpoint);
  s.spec = family.parse(*s.checkpoint);
  s.params = load_params(*s.checkpoint, family, s.spec);
  const auto blocks =
      std::ranges::count_if(s.params.all(), [](const auto& p) { return is_block_type(p.second.value.dtype()); });
  if (blocks > 0 && !a.allow_requantize) {
    fail_usage(
        fmt::format("[quantize] {} of {} tensors of {} are quantized already, and errors add up "
                    "(--allow-requantize does it)",
                    blocks, s.params.all().size(), a.model));
  }
  if (!a.calibrate.empty() || !a.report.empty()) {
    s.tokenizer = a.tokenizer.empty() ? find_tokenizer(*s.checkpoint) : open_any_tokenizer(a.tokenizer);
    if (!s.tokenizer) fail_data("[quantize] " + a.model + " has no tokenizer to read a text with; see --tokenizer");
    check_vocabulary(*s.tokenizer, s.spec.padded_vocab_size);
  }
  return s;
}

void print_plan(const std::vector<PlannedTensor>& plan) {
  std::printf("%-28s %16s %-6s %7s  %s\n", "tensor", "shape", "type", "KiB", "reason");
  for (const PlannedTensor& t : plan) {
    std::printf("%s\n", fmt::format("{:28} {:>16} {:6} {:>7.1f}  {}{}", t.file_name, t.shape.str(), name_of(t.type),
                                    static_cast<double>(t.bytes()) / 1024, text::escape_controls(t.reason),
                                    t.warning.empty() ? "" : "; warning: " + t.warning)
                            .c_str());
  }
  std::printf("%s\n", fmt::format("{} weights, {} bytes, {:.3f} bits a weight", quant::planned_weights(plan),
                                  quant::planned_bytes(plan), quant::planned_bits_per_weight(plan))
                          .c_str());
}

// Every fallback is said (trap D6), and so is what is risky (trap D2).
void report_doubts(const std::vector<PlannedTensor>& plan, bool strict) {
  std::string fallbacks;
  int64_t n = 0, warnings = 0, blocks = 0;
  for (const PlannedTensor& t : plan) {
    blocks += is_block_type(t.type) ? 1 : 0;
    warnings += t.warning.empty() ? 0 : 1;
    if (!t.fallback) continue;
    ++n;
    fallbacks += fmt::format("\n  {} {}: {}", t.file_name, t.shape.str(), t.reason);
  }
  if (n > 0 && strict)
    fail_usage(fmt::format("[quantize] --strict, and {} tensors need another type:{}", n, fallbacks));
  if (blocks == 0) {
    const std::string nothing = "not one matrix gets a quantized type (--explain shows why)";
    if (strict) fail_usage("[quantize] --strict, and " + nothing);
    std::fprintf(stderr, "warning: %s\n", nothing.c_str());
  }
  if (n > 0)
    std::fprintf(stderr,
                 "note: %lld tensors have rows that their type does not fit, and get another "
                 "(--explain lists them, --strict refuses)\n",
                 static_cast<long long>(n));
  if (warnings > 0)
    std::fprintf(stderr,
                 "note: %lld matrices make dt with fewer than 8 bits a weight "
                 "(--explain lists them)\n",
                 static_cast<long long>(warnings));
}

// Moves the bar; ends the program if Ctrl-C was pressed.
std::function<void(int64_t)> counting(ProgressBar& bar) {
  return [&bar](int64_t n) {
    Signals::check();
    bar.advance(n);
  };
}

ActivationStats calibrate(const Source& s, std::span<const int32_t> ids) {
  ActivationStats stats;
  Runtime rt = s.runtime;
  rt.observer = &stats;
  const Model model(s.spec, s.params, rt);
  SlotStore states(model.state_specs(), 1);
  model.reset_state(states, 0);
  ProgressBar bar("calibrating", static_cast<int64_t>(ids.size()), "tokens");
  score(model, states, 0, ids, [&](int64_t, const Tensor& part) {
    counting(bar)(part.dim(0));
    return true;
  });
  return stats;
}

quant::Quantized encode(const Source& s, const std::vector<PlannedTensor>& plan, const ActivationStats* stats) {
  ProgressBar bar("quantizing", quant::planned_weights(plan), "weights");
  return quant::quantize(s.params, plan, stats, *s.pool, counting(bar));
}

// 1k, 8k, 10k, 32k, 100k, … and the last one itself: the positions of trap D2 and round ones.
std::vector<int64_t> drift_positions(int64_t last) {
  std::vector<int64_t> out;
  for (const int64_t p : {1000, 8000, 10000, 32000, 100000, 1000000}) {
    if (p < last) out.push_back(p);
  }
  if (last > 0) out.push_back(last);
  return out;
}

void measure(const QuantizeArgs& a, const Source& s, const quant::Quantized& q, const Texts& texts, quant::Report& r) {
  const Model original(s.spec, s.params, s.runtime), quantized(s.spec, q.params, s.runtime);
  {
    ProgressBar bar("comparing", static_cast<int64_t>(texts.evaluation.size()), "tokens");
    r.comparison = quant::compare(original, quantized, texts.evaluation, 0, counting(bar));
  }
  if (a.drift > 0) {
    ProgressBar bar("drift", a.drift, "tokens");
    r.drift = quant::drift(original, quantized, texts.evaluation, drift_positions(a.drift), counting(bar));
  }
  if (a.effects) {
    constexpr size_t kEffectTokens = 512;
    const auto ids = std::span(texts.evaluation).first(std::min(texts.evaluation.size(), kEffectTokens));
    r.effects_text = {r.evaluation.name, static_cast<int64_t>(ids.size())};
    ProgressBar bar("effects", static_cast<int64_t>(r.tensors.size() * ids.size()), "tokens");
    r.effects = effects_of_each(original, q.params, r.tensors, ids, counting(bar));
  }
}

quant::Report make_report(const QuantizeArgs& a, const Source& s, const std::vector<PlannedTensor>& plan,
                          const quant::Quantized& q, const Texts& texts) {
  quant::Report r;
  r.model = text::replace_invalid_utf8(a.model);
  r.out = text::replace_invalid_utf8(a.out);
  r.type = quant::find_mix(a.type).name;
  r.architecture = s.spec.architecture;
  for (const PlannedTensor& t : plan) r.bytes_before += bytes_of(t.from, t.shape.numel());
  r.tensors = plan;
  r.errors = q.errors;
  r.calibration = texts.calibration_use;
  r.evaluation = texts.evaluation_use;
  if (r.calibration) r.calibration->name = text::replace_invalid_utf8(r.calibration->name);
  r.evaluation.name = text::replace_invalid_utf8(r.evaluation.name);
  measure(a, s, q, texts, r);
  return r;
}

int quantize(const QuantizeArgs& a) {
  const quant::Mix& mix = quant::find_mix(a.type);
  const quant::MixOptions options{a.pure, parse_overrides(a.tensor_types)};
  check_outputs(a);
  const Source s = open(a);
  const auto plan = quant::plan(s.spec, s.params, mix, options);
  if (a.explain) print_plan(plan);
  report_doubts(plan, a.strict);
  if (a.out.empty()) return 0;
  const Signals signals;
  Texts texts;
  if (s.tokenizer) {
    texts = read_texts({a.calibrate, a.eval, a.tokens, a.eval_tokens, !a.report.empty(), a.lossy_utf8}, *s.tokenizer);
  }
  std::optional<ActivationStats> stats;
  // Outputs are on the disk before OUT and named after it: a full disk, an error or Ctrl-C leaves none of them.
  std::optional<io::AtomicFile> statistics, page;
  if (!a.calibrate.empty()) stats = calibrate(s, texts.calibration);
  if (!a.save_stats.empty()) {
    statistics.emplace(a.save_stats);
    stats->write(*statistics);
  }
  if (!a.stats.empty()) {
    stats = ActivationStats::load(a.stats, s.spec);
    texts.calibration_use = quant::TextUse{a.stats, stats->rows(kEmbeddingName)};
  }
  const quant::Quantized q = encode(s, plan, stats ? &*stats : nullptr);
  std::optional<quant::Report> report;
  if (!a.report.empty()) {
    report = make_report(a, s, plan, q, texts);
    page.emplace(a.report);
    page->write(a.report.ends_with(".json") ? to_json(*report) : to_html(*report));
  }
  save_gguf(s.spec, q.params, a.out, accompanying_values(*s.checkpoint, s.spec, !a.no_tokenizer), Signals::check,
            quant::file_type_of(mix, plan));
  for (std::optional<io::AtomicFile>* f : {&statistics, &page}) {
    if (*f) (*f)->commit();
  }
  std::fprintf(
      stderr, "%s\n",
      fmt::format("wrote {} ({}, {:.2f} MiB of tensors, {:.3f} bits a weight)", text::escape_controls(a.out), mix.name,
                  static_cast<double>(quant::planned_bytes(plan)) / (1 << 20), quant::planned_bits_per_weight(plan))
          .c_str());
  if (report) {
    const quant::TextComparison& c = report->comparison;
    std::fprintf(stderr, "%s\n",
                 fmt::format("mean KL {:.6f}, perplexity {:.4f} of {:.4f} ({:+.3f} %) on {} tokens", c.mean_kl,
                             c.perplexity_quantized(), c.perplexity_original(),
                             100 * (c.perplexity_quantized() / c.perplexity_original() - 1), c.tokens)
                     .c_str());
  }
  return 0;
}

}  // namespace

void add_quantize(Command& root) {
  auto a = std::make_shared<QuantizeArgs>();
  Command c = root.subcommand("quantize", "Write a checkpoint as a GGUF file of fewer bits, with a report");
  std::string types;
  for (const quant::Mix& m : quant::mixes()) types += std::string(types.empty() ? "" : ", ") + m.name;
  c.positional("MODEL", a->model, "folder or file: safetensors, pytorch_model.bin, GGUF");
  c.positional("OUT", a->out, "a file that ends in .gguf; not needed with --explain", false);
  c.option("--type", a->type, "the mix of types: " + types);
  c.list("--tensor-type", a->tensor_types,
         "REGEX=TYPE: tensors whose name in the GGUF file matches get that type; repeatable, the last match wins");
  c.flag("--pure", a->pure, "the base type for every matrix, no rules");
  c.flag("--strict", a->strict, "an error where a tensor's rows do not fit its type, instead of another type");
  c.flag("--explain", a->explain, "print every tensor with its type and the reason; without OUT, nothing else");
  c.option("--calibrate", a->calibrate, "a text: columns that are large on it are rounded with more care");
  c.option("--tokens", a->tokens, "tokens of it to read");
  c.option("--save-stats", a->save_stats, "keep what calibration found in a file (a GGUF imatrix)");
  c.option("--stats", a->stats, "use such a file instead of a text");
  c.option("--report", a->report, "a page (.html) or data (.json): errors of each tensor, KL, perplexity, drift");
  c.option("--eval", a->eval, "text of the report; default: what follows the calibration tokens, or a built-in one");
  c.option("--eval-tokens", a->eval_tokens, "tokens of it to read");
  c.option("--drift", a->drift, "tokens after which states and KL are compared, at round numbers on the way; 0: none");
  c.flag("--effects", a->effects, "also quantize each tensor alone and measure the KL (slow)");
  c.flag("--allow-requantize", a->allow_requantize, "accept a MODEL that is quantized already");
  c.flag("--force", a->force, "overwrite OUT and the files of --save-stats and --report");
  c.flag("--no-tokenizer", a->no_tokenizer, "leave the tokenizer out");
  c.option("--tokenizer", a->tokenizer, "tokenizer file or folder for the texts, if not beside the weights");
  c.flag("--lossy-utf8", a->lossy_utf8, "take texts that are not UTF-8: U+FFFD stands for what is not");
  c.option("-t,--threads", a->threads, "threads; 0: all CPUs this process may use");
  c.option("--kernels", a->kernels, "kernel set (see 'krait doctor'); auto: the best this CPU runs");
  c.footer("Rules, figures and the report: docs/quantization.md.");
  c.run([a, c] {
    check_usage(*a, c);
    return quantize(*a);
  });
}

}  // namespace krait::cli
