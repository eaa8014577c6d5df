#include "krait/train/lora.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <regex>

#include "krait/core/error.h"
#include "krait/core/rng.h"

namespace krait::train {
namespace {

// "backbone.layers.3.mixer.in_proj" -> "in_proj"
std::string last_part(const std::string& module) { return module.substr(module.rfind('.') + 1); }

bool names(const std::string& target, const AdaptableParam& p) {
  if (target == kAllLinear) return p.name != kEmbeddingName && last_part(p.module) != "conv1d";
  const bool table = p.name == kEmbeddingName && target == "embedding";  // the original form's name of it
  return p.module == target || p.module.ends_with("." + target) || table;
}

std::string kinds(const std::vector<AdaptableParam>& all) {
  std::vector<std::string> seen;
  for (const AdaptableParam& p : all) {
    if (const std::string kind = last_part(p.module); std::ranges::find(seen, kind) == seen.end()) seen.push_back(kind);
  }
  return fmt::format("{}", fmt::join(seen, ", "));
}

std::regex compiled(const std::string& pattern) {
  try {
    return std::regex(pattern);
  } catch (const std::regex_error& e) {
    fail_usage("[lora] '" + pattern + "' is no regular expression: " + e.what());
  }
}

struct Named {
  std::vector<bool> those;  // [all]
  std::string nothing;      // the names that name none, for messages
};

Named named_by(const std::vector<std::string>& targets, bool are_pattern, const std::vector<AdaptableParam>& all) {
  Named n{std::vector<bool>(all.size()), {}};
  for (const std::string& target : targets) {
    const std::regex pattern = are_pattern ? compiled(target) : std::regex();
    bool any = false;
    for (size_t i = 0; i < all.size(); ++i) {
      if (!(are_pattern ? std::regex_match(all[i].module, pattern) : names(target, all[i]))) continue;
      n.those[i] = any = true;
    }
    if (!any) n.nothing += (n.nothing.empty() ? "'" : ", '") + target + "'";
  }
  return n;
}

std::vector<AdaptableParam> chosen(const std::vector<AdaptableParam>& all, const std::vector<bool>& those, bool which) {
  std::vector<AdaptableParam> found;
  for (size_t i = 0; i < all.size(); ++i)
    if (those[i] == which) found.push_back(all[i]);
  return found;
}

// What peft takes in a list of names: not its shorthand for all matrices.
std::vector<std::string> spelled_out(const std::vector<std::string>& targets, const std::vector<AdaptableParam>& all) {
  std::vector<std::string> out;
  const auto add = [&](const std::string& name) {
    if (std::ranges::find(out, name) == out.end()) out.push_back(name);
  };
  for (const std::string& target : targets) {
    if (target != kAllLinear) add(target);
    for (const AdaptableParam& p : all)
      if (target == kAllLinear && names(target, p)) add(last_part(p.module));
  }
  return out;
}

Tensor drawn(const Shape& shape, uint64_t seed, uint64_t stream, double bound, bool normal) {
  Tensor t = Tensor::empty(shape);
  Rng rng(seed, stream);
  for (int64_t i = 0; i < t.numel(); ++i) {
    t.f32()[i] = static_cast<float>(normal ? rng.normal() : rng.uniform(-bound, bound));
  }
  return t;
}

void check(const LoraSettings& s) {
  if (s.rank < 1 || s.rank > 1024) fail_usage(fmt::format("[lora] the rank is {}, wants 1 to 1024", s.rank));
  if (!(s.alpha > 0) || !std::isfinite(s.alpha)) fail_usage(fmt::format("[lora] alpha is {}, wants > 0", s.alpha));
  if (!(s.dropout >= 0 && s.dropout < 1)) {
    fail_usage(fmt::format("[lora] dropout is {}, wants 0 to below 1", s.dropout));
  }
}

}  // namespace

std::vector<AdaptableParam> match_targets(const ModelSpec& spec, const std::vector<std::string>& targets,
                                          bool are_pattern) {
  const std::vector<AdaptableParam> all = adaptable_params(spec);
  if (targets.empty()) fail_usage("[lora] no targets; the model has " + kinds(all));
  const Named named = named_by(targets, are_pattern, all);
  if (!named.nothing.empty()) {
    fail_usage(
        fmt::format("[lora] {} names nothing that can be adapted; the model has {} (e.g. {}){}", named.nothing,
                    kinds(all), all.back().module,
                    are_pattern ? "; a string is a regular expression for whole names, a list names modules" : ""));
  }
  return chosen(all, named.those, true);
}

std::vector<AdaptableParam> without(const std::vector<AdaptableParam>& from, const std::vector<std::string>& exclude,
                                    bool is_pattern) {
  const Named named = named_by(exclude, is_pattern, from);
  if (!named.nothing.empty()) {
    fail_usage(fmt::format("[lora] exclude: {} names none of the targets, which are {} (e.g. {})", named.nothing,
                           kinds(from), from.back().module));
  }
  std::vector<AdaptableParam> rest = chosen(from, named.those, false);
  if (rest.empty()) fail_usage("[lora] exclude names all of the targets: nothing is left to adapt");
  return rest;
}

Adapter new_adapter(const ModelSpec& spec, const LoraSettings& s, uint64_t seed) {
  check(s);
  Adapter a;
  a.name = "lora";
  a.settings = s;
  if (!s.targets_are_pattern) a.settings.targets = spelled_out(s.targets, adaptable_params(spec));
  std::vector<AdaptableParam> adapted = match_targets(spec, s.targets, s.targets_are_pattern);
  if (!s.exclude.empty()) adapted = without(adapted, s.exclude, s.exclude_is_pattern);
  uint64_t stream = 0;
  for (const AdaptableParam& p : adapted) {
    LowRankFactors f;
    const bool table = p.name == kEmbeddingName;
    const double bound = 1 / std::sqrt(static_cast<double>(p.K));
    f.A = table ? Tensor::zeros({s.rank, p.K}) : drawn({s.rank, p.K}, seed, stream, bound, false);
    f.B = table ? drawn({p.N, s.rank}, seed, stream, 0, true) : Tensor::zeros({p.N, s.rank});
    f.scale = static_cast<float>(scale_of(s.rank, s.alpha, s.rslora));
    a.factors[p.name] = std::move(f);
    ++stream;
  }
  return a;
}

void add_initial_states(Adapter& a, const Model& model) {
  const std::vector<StateSpec> specs = model.state_specs();
  for (size_t b = 0; b < specs.size(); ++b) {
    for (const StateTensorSpec& t : specs[b]) {
      if (t.dtype != DType::kF32 || t.shape.numel() == 0) continue;
      a.states[model.spec().blocks[b].prefix + "." + t.name] = Tensor::zeros(t.shape);
    }
  }
}

std::vector<std::pair<ParamSpec, Tensor>> adapter_params(const Adapter& a) {
  std::vector<std::pair<ParamSpec, Tensor>> all;
  const auto add = [&](const std::string& name, const Tensor& t, ParamRole role) {
    all.push_back({{name, t.shape(), role, {}}, t});
  };
  for (const auto& [name, f] : a.factors) {
    add(name + ".lora_A", f.A, ParamRole::kMatmul);
    add(name + ".lora_B", f.B, ParamRole::kMatmul);
  }
  for (const auto& [name, t] : a.states) add(name, t, ParamRole::kVector);
  return all;
}

Adapter clone(const Adapter& a) {
  Adapter c = a;
  for (auto& [name, f] : c.factors) {
    f.A = f.A.clone();
    f.B = f.B.clone();
  }
  for (auto& [name, t] : c.states) t = t.clone();
  return c;
}

std::string describe(const Adapter& a, const ModelSpec& spec) {
  struct Kind {
    int64_t adapted = 0, all = 0, parameters = 0;
  };
  std::map<std::string, Kind> by_kind;
  int64_t model = 0, modules = 0;
  for (const ParamSpec& p : model_params(spec)) model += p.shape.numel();
  for (const AdaptableParam& p : adaptable_params(spec)) {
    Kind& k = by_kind[last_part(p.module)];
    ++k.all;
    ++modules;
    const auto f = a.factors.find(p.name);
    if (f == a.factors.end()) continue;
    ++k.adapted;
    k.parameters += f->second.A.numel() + f->second.B.numel();
  }
  std::string text = fmt::format("{} of {} modules, {} initial states, {} parameters, {:.3f} % of the model",
                                 a.factors.size(), modules, a.states.size(), a.param_count(),
                                 100 * static_cast<double>(a.param_count()) / static_cast<double>(model));
  for (const auto& [kind, k] : by_kind) {
    if (k.adapted > 0) text += fmt::format("\n  {:<12} {:>4} of {:<4} {:>10}", kind, k.adapted, k.all, k.parameters);
  }
  return text;
}

}  // namespace krait::train
