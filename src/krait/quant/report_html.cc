// The report as a page: tables and bars, plain HTML and CSS.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "krait/quant/report.h"

namespace krait::quant {
namespace {

constexpr const char* kStyle = R"(
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; color: #222; }
h1 { font-size: 1.4em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2em .6em; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child, .text { text-align: left; }
.text { white-space: normal; font-size: .9em; color: #555; }
.bar { display: inline-block; height: .7em; background: #7aa6c9; vertical-align: middle; margin-right: .4em; }
.warn { color: #a30; }
dl { display: grid; grid-template-columns: max-content auto; gap: .1em 1.2em; } dt { color: #555; }
)";

// Mamba-3 rotates keys and queries by an angle that is summed up over the text.
constexpr const char* kAngleNote =
    " The states k and ssm stand in a frame that turns with the phase: where phases have drifted apart they differ, "
    "though the outputs, which see angles between tokens only, may not. The KL tells.";

std::string escape(const std::string& s) {
  std::string out;
  for (const char c : s) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {  // no characters of a page
          out += fmt::format("\\x{:02X}", static_cast<unsigned char>(c));
        } else {
          out += c;
        }
    }
  }
  return out;
}

std::string figure(double v) { return !std::isfinite(v) ? "–" : v == 0 ? "0" : fmt::format("{:.3g}", v); }
std::string percent(double v) { return fmt::format("{:+.3f} %", 100 * v); }
std::string mib(int64_t bytes) { return fmt::format("{:.2f} MiB", static_cast<double>(bytes) / (1 << 20)); }

// A figure with a bar of its share of the column's largest.
std::string bar(double v, double largest) {
  if (!std::isfinite(v) || !(largest > 0)) return figure(v);
  return fmt::format(R"(<span class="bar" style="width:{:.0f}px"></span>{})", 60 * v / largest, figure(v));
}

std::string term(const std::string& name, const std::string& value) {
  return fmt::format("<dt>{}</dt><dd>{}</dd>\n", name, escape(value));
}

std::string summary(const Report& r) {
  const TextComparison& c = r.comparison;
  const double before = c.perplexity_original(), after = c.perplexity_quantized();
  std::string s = "<dl>\n";
  s += term("model", r.model);
  s += term("type", r.type);
  s += term("size",
            fmt::format("{} of {}, {:.3f} bits a weight", mib(r.bytes()), mib(r.bytes_before), r.bits_per_weight()));
  s += term("calibration", r.calibration ? fmt::format("{}, {} tokens", r.calibration->name, r.calibration->tokens)
                                         : "none: all columns of a matrix count alike");
  s += term("evaluated on", fmt::format("{}, {} tokens", r.evaluation.name, c.tokens));
  s += term("mean KL", figure(c.mean_kl) + " nats a token");
  s += term("largest KL", figure(c.max_kl) + " nats");
  s += term("same best token", fmt::format("{:.2f} %", 100 * c.same_top));
  s += term("perplexity",
            fmt::format("{:.4f}, of the original {:.4f} ({})", after, before, percent(after / before - 1)));
  return s + "</dl>\n";
}

std::string drift_table(const Report& r) {
  if (r.drift.empty()) return "";
  const bool angles = std::ranges::any_of(r.drift.front().states, &StateDrift::angle);
  std::string s = fmt::format(
      "<h2>Drift</h2>\n<p>Both models read the text, again and again, without a reset. State: relative RMS difference "
      "of all states together. KL: mean over the {} tokens before.{}</p>\n<table><tr><th>tokens</th><th>KL</th>"
      "<th>state</th><th class=\"text\">states that differ most</th></tr>\n",
      kDriftWindow, angles ? kAngleNote : "");
  for (const DriftPoint& p : r.drift) {
    std::vector<StateDrift> worst = p.states;
    std::ranges::stable_sort(worst, [](const auto& a, const auto& b) { return a.error > b.error; });
    std::string names;
    for (size_t i = 0; i < std::min<size_t>(worst.size(), 4); ++i) {
      names += fmt::format("{}{} {}{}", i == 0 ? "" : ", ", worst[i].name, figure(worst[i].error),
                           worst[i].angle ? " turns" : "");
    }
    s += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"text\">{}</td></tr>\n", p.tokens,
                     figure(p.mean_kl), figure(p.state), names);
  }
  return s + "</table>\n";
}

std::string tensor_table(const Report& r) {
  double largest_error = 0, largest_output = 0, largest_effect = 0;
  for (size_t i = 0; i < r.tensors.size(); ++i) {
    largest_error = std::max(largest_error, r.errors[i].weights);
    if (r.errors[i].outputs > largest_output) largest_output = r.errors[i].outputs;
    if (!r.effects.empty() && r.effects[i]) largest_effect = std::max(largest_effect, *r.effects[i]);
  }
  std::string s =
      "<h2>Tensors</h2>\n<p>Errors are relative RMS: of the weights, and of the matmul's output on the calibration "
      "text. Effect: mean KL with only that tensor quantized.</p>\n<table><tr><th>tensor</th><th>shape</th><th>from"
      "</th><th>type</th><th>bits</th><th>bytes</th><th>weights</th><th>output</th><th>effect</th><th class=\"text\">"
      "reason</th></tr>\n";
  for (size_t i = 0; i < r.tensors.size(); ++i) {
    const PlannedTensor& t = r.tensors[i];
    const bool effect = !r.effects.empty() && r.effects[i];
    s += fmt::format(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.2f}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>"
        "<td class=\"text\">{}{}</td></tr>\n",
        escape(t.file_name), t.shape.str(), name_of(t.from), name_of(t.type), t.bits_per_weight(), t.bytes(),
        bar(r.errors[i].weights, largest_error), bar(r.errors[i].outputs, largest_output),
        effect ? bar(*r.effects[i], largest_effect) : "–", escape(t.reason),
        t.warning.empty() ? "" : " <span class=\"warn\">" + escape(t.warning) + "</span>");
  }
  return s + "</table>\n";
}

}  // namespace

std::string to_html(const Report& r) {
  const std::string title = escape(fmt::format("{} as {}", r.model, r.type));
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\n<style>{}</style></head>"
      "\n<body>\n<h1>{}</h1>\n{}{}{}</body></html>\n",
      title, kStyle, title, summary(r), drift_table(r), tensor_table(r));
}

}  // namespace krait::quant
