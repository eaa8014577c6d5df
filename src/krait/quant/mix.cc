#include "krait/quant/mix.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <limits>
#include <map>
#include <regex>
#include <string_view>

#include "krait/core/error.h"
#include "krait/models/gguf_names.h"

namespace krait::quant {
namespace {

constexpr std::array kWritable = {DType::kF32,  DType::kF16,  DType::kBF16,   DType::kQ8_0,   DType::kQ6_K,
                                  DType::kQ5_K, DType::kQ5_1, DType::kQ5_0,   DType::kQ4_K,   DType::kQ4_1,
                                  DType::kQ4_0, DType::kQ3_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kQ2_K};

std::string lower(std::string s) {
  std::ranges::transform(s, s.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return s;
}

bool fits(DType t, int64_t row) { return row % block_of(t).elements == 0; }

// What a row takes that is no whole number of blocks of `t`: a type of at least its bits with shorter blocks, else a
// half: bf16 for what was bf16, which it holds to the bit.
DType fallback_of(DType t, int64_t row, DType from) {
  if (fits(t, row)) return t;
  const DType half = from == DType::kBF16 ? DType::kBF16 : DType::kF16;
  const DType shorter = t == DType::kQ4_K             ? DType::kQ5_0
                        : t == DType::kQ5_K           ? DType::kQ5_1
                        : t == DType::kQ6_K           ? DType::kQ8_0
                        : block_of(t).elements == 256 ? DType::kIQ4_NL
                                                      : half;
  return fits(shorter, row) ? shorter : half;
}

// The layer that a parameter belongs to; past all layers for the shell's.
int64_t layer_of(const std::string& canonical) {
  constexpr std::string_view kLayers = "backbone.layers.";
  int64_t layer = std::numeric_limits<int64_t>::max();
  if (canonical.starts_with(kLayers)) {
    std::from_chars(canonical.data() + kLayers.size(), canonical.data() + canonical.size(), layer);
  }
  return layer;
}

struct Choice {
  DType type;
  std::string reason;
};

// The rules, for operands of matmuls and tables.
class Rules {
 public:
  Rules(const ModelSpec& spec, const Mix& mix, const MixOptions& o) : spec_(spec), mix_(mix), options_(o) {}

  Choice choose(const ParamSpec& p) const {
    if (options_.pure) return {mix_.base, "--pure: the base type everywhere"};
    if (p.role == ParamRole::kTable || p.name == kHeadName) {
      const bool head = p.name == kHeadName || spec_.tie_embeddings;
      return {mix_.table, head ? "head: its error goes straight into the logits" : "embedding: begins every token"};
    }
    if (p.name.ends_with(".x_proj.weight"))
      return {mix_.small, "makes dt, B and C: small, and its error is integrated"};
    if (p.name.ends_with(".dt_proj.weight")) return {mix_.small, "makes dt: small, and its error is integrated"};
    if (mix_.raised != mix_.base && layer_of(p.name) < raised_layers()) {
      return {mix_.raised, "one of the first layers: everything after them reads their error"};
    }
    return {mix_.base, "base type"};
  }

 private:
  int64_t raised_layers() const { return std::max<int64_t>(1, spec_.n_layer / 16); }

  const ModelSpec& spec_;
  const Mix& mix_;
  const MixOptions& options_;
};

void apply_fallback(PlannedTensor& t) {
  const DType wanted = t.type;
  const int64_t row = t.shape[-1];
  t.type = fallback_of(wanted, row, t.from);
  t.fallback = t.type != wanted;
  if (t.fallback) {
    t.reason += fmt::format("; rows of {} are no multiple of {}, so {} instead of {}", row, block_of(wanted).elements,
                            name_of(t.type), name_of(wanted));
  }
}

// The product of all counts in {n} and {n,m}: at most so many times a part of the pattern stands in the automaton.
int64_t repetitions(std::string_view pattern) {
  constexpr int64_t kMany = 1'000'000;
  int64_t product = 1;
  for (size_t open = pattern.find('{'); open != std::string_view::npos; open = pattern.find('{', open + 1)) {
    const char* at = pattern.data() + open;
    const char* const end = pattern.data() + pattern.size();
    do {
      int64_t n = 0;
      const auto [rest, error] = std::from_chars(at + 1, end, n);
      if (error == std::errc::result_out_of_range || n > kMany) return kMany;
      product = std::min(kMany, product * std::max<int64_t>(n, 1));
      at = rest;
    } while (at != end && *at == ',');
  }
  return product;
}

// A matcher whose time and stack are bounded by the size of the pattern, not by what backtracking makes of it.
std::regex compile(const std::string& pattern) {
  constexpr int64_t kMostRepetitions = 100;
  if (pattern.size() > kLongestPattern) {
    fail_usage(fmt::format("[quantize] --tensor-type '{}…' has {} bytes, at most {} are taken", pattern.substr(0, 20),
                           pattern.size(), kLongestPattern));
  }
  if (repetitions(pattern) > kMostRepetitions) {
    fail_usage(fmt::format("[quantize] --tensor-type '{}' repeats more than {} times", pattern, kMostRepetitions));
  }
  try {
#ifdef __GLIBCXX__
    return std::regex(pattern, std::regex::ECMAScript | std::regex_constants::__polynomial);
#else
    return std::regex(pattern);
#endif
  } catch (const std::regex_error& e) {
    fail_usage(fmt::format("[quantize] --tensor-type '{}' is no regular expression: {}", pattern, e.what()));
  }
}

void apply_overrides(std::vector<PlannedTensor>& tensors, const MixOptions& o) {
  for (const auto& [pattern, type] : o.overrides) {
    const std::regex regex = compile(pattern);
    bool matched = false;
    for (PlannedTensor& t : tensors) {
      if (t.vector || !std::regex_search(t.file_name, regex)) continue;
      matched = true;
      if (!fits(type, t.shape[-1])) {
        fail_usage(fmt::format("[quantize] --tensor-type {}={}: rows of {} have {} values, no multiple of {}", pattern,
                               name_of(type), t.file_name, t.shape[-1], block_of(type).elements));
      }
      t.type = type;
      t.fallback = false;
      t.reason = fmt::format("--tensor-type {}={}", pattern, name_of(type));
    }
    if (!matched) fail_usage("[quantize] --tensor-type '" + pattern + "' matches no matrix (--explain lists them)");
  }
}

// Whether dt comes out of that matrix: from Mamba-1's x_proj and dt_proj, or rows of the others' in_proj.
bool makes_dt(const ModelSpec& spec, const std::string& name) {
  const bool in_proj =
      name.ends_with(".in_proj.weight") && (spec.architecture == "mamba2" || spec.architecture == "mamba3");
  return in_proj || name.ends_with(".x_proj.weight") || name.ends_with(".dt_proj.weight");
}

// Few bits where an error is carried along by the state (trap D2).
void add_warning(const ModelSpec& spec, PlannedTensor& t) {
  if (makes_dt(spec, t.name) && t.bits_per_weight() < 8) {
    t.warning = fmt::format("makes dt with {:.2f} bits a weight; see the drift in the report", t.bits_per_weight());
  }
}

}  // namespace

const std::vector<Mix>& mixes() {
  using enum DType;
  static const std::vector<Mix> all = {
      {"Q8_0", 7, kQ8_0, kQ8_0, kQ8_0, kQ8_0},        {"Q6_K", 18, kQ6_K, kQ6_K, kQ8_0, kQ8_0},
      {"Q5_K_M", 17, kQ5_K, kQ6_K, kQ6_K, kQ8_0},     {"Q5_K_S", 16, kQ5_K, kQ5_K, kQ6_K, kQ8_0},
      {"Q5_1", 9, kQ5_1, kQ5_1, kQ6_K, kQ8_0},        {"Q5_0", 8, kQ5_0, kQ5_0, kQ6_K, kQ8_0},
      {"Q4_K_M", 15, kQ4_K, kQ6_K, kQ6_K, kQ8_0},     {"Q4_K_S", 14, kQ4_K, kQ4_K, kQ6_K, kQ8_0},
      {"Q4_1", 3, kQ4_1, kQ4_1, kQ6_K, kQ8_0},        {"Q4_0", 2, kQ4_0, kQ4_0, kQ6_K, kQ8_0},
      {"IQ4_NL", 25, kIQ4_NL, kIQ4_NL, kQ6_K, kQ8_0}, {"IQ4_XS", 30, kIQ4_XS, kIQ4_XS, kQ6_K, kQ8_0},
      {"Q3_K_M", 12, kQ3_K, kQ5_K, kQ6_K, kQ8_0},     {"Q2_K", 10, kQ2_K, kQ4_K, kQ6_K, kQ8_0},
  };
  return all;
}

const Mix& find_mix(const std::string& name) {
  std::string known;
  for (const Mix& m : mixes()) {
    if (lower(m.name) == lower(name)) return m;
    known += std::string(" ") + m.name;
  }
  fail_usage("[quantize] there is no type '" + name + "'; types:" + known);
}

DType parse_type(const std::string& name) {
  std::string known;
  for (const DType t : kWritable) {
    if (name_of(t) == lower(name)) return t;
    known += " " + std::string(name_of(t));
  }
  fail_usage("[quantize] there is no tensor type '" + name + "'; types:" + known);
}

std::vector<PlannedTensor> plan(const ModelSpec& spec, const ParamStore& params, const Mix& mix, const MixOptions& o) {
  const Rules rules(spec, mix, o);
  std::vector<PlannedTensor> out;
  for (const ParamSpec& p : model_params(spec)) {
    PlannedTensor t;
    t.name = p.name;
    t.file_name = gguf_tensor_name(p.name);
    t.shape = p.shape;
    t.from = params.get(p.name).value.dtype();
    t.vector = p.role == ParamRole::kVector;
    if (t.vector) {
      t.reason = "no operand of a matmul: small, and used as f32";
    } else {
      Choice c = rules.choose(p);
      t.type = c.type;
      t.reason = std::move(c.reason);
      apply_fallback(t);
    }
    out.push_back(std::move(t));
  }
  apply_overrides(out, o);
  for (PlannedTensor& t : out) add_warning(spec, t);
  return out;
}

std::optional<int64_t> file_type_of(const Mix& mix, const std::vector<PlannedTensor>& tensors) {
  std::map<DType, int64_t> weights;
  for (const PlannedTensor& t : tensors) {
    if (!t.vector) weights[t.type] += t.shape.numel();
  }
  const auto most = std::ranges::max_element(weights, {}, [](const auto& w) { return w.second; });
  if (most == weights.end()) return std::nullopt;
  const DType type = most->first;
  return type == mix.base || type == mix.raised || type == mix.table ? std::optional(mix.file_type) : std::nullopt;
}

int64_t planned_weights(const std::vector<PlannedTensor>& tensors) {
  int64_t n = 0;
  for (const PlannedTensor& t : tensors) n += t.shape.numel();
  return n;
}

int64_t planned_bytes(const std::vector<PlannedTensor>& tensors) {
  int64_t n = 0;
  for (const PlannedTensor& t : tensors) n += t.bytes();
  return n;
}

double planned_bits_per_weight(const std::vector<PlannedTensor>& tensors) {
  return 8.0 * static_cast<double>(planned_bytes(tensors)) / static_cast<double>(planned_weights(tensors));
}

}  // namespace krait::quant
