#include "krait/models/peft.h"

#include <fmt/format.h>

#include <optional>
#include <regex>
#include <set>

#include "krait/core/error.h"
#include "krait/io/json.h"
#include "krait/io/mapped_file.h"
#include "krait/io/safetensors.h"

namespace krait {
namespace {

namespace fs = std::filesystem;
using io::Json;

constexpr const char* kKeyPrefix = "base_model.model.";

Json read_config(const fs::path& file) {
  Json j = Json::parse(io::MappedFile::open(file)->text(), file.string());
  if (!j.is_object()) fail_data("[lora] " + file.string() + " is not a JSON object");
  return j;
}

bool is_set(const Json& j, const char* key) {
  const Json* v = j.find(key);
  if (v == nullptr || v->is_null()) return false;
  if (v->is_bool()) return v->as_bool();
  return !(v->is_array() || v->is_object()) || v->size() > 0;
}

// Settings that make more, or something else, of an adapter than W + scale · B·A.
void refuse_variants(const Json& j, const std::string& file) {
  if (const std::string type = j.string_or("peft_type", "LORA"); type != "LORA") {
    fail_data("[lora] " + file + ": peft_type is '" + type + "', only LORA is known");
  }
  std::string bad;
  const auto refuse = [&](const char* key, const char* why) { bad += fmt::format("\n  {}: {}", key, why); };
  if (is_set(j, "use_dora")) refuse("use_dora", "DoRA is not supported");
  if (const std::string bias = j.string_or("bias", "none"); bias != "none") refuse("bias", "only 'none' is supported");
  if (is_set(j, "lora_bias")) refuse("lora_bias", "biases of B are not supported");
  if (is_set(j, "fan_in_fan_out")) refuse("fan_in_fan_out", "no matrix of these models is stored transposed");
  for (const char* key : {"modules_to_save", "layer_replication", "target_parameters", "trainable_token_indices"}) {
    if (is_set(j, key)) refuse(key, "is not supported");
  }
  if (const Json* init = j.find("init_lora_weights"); init != nullptr && init->is_string()) {
    for (const char* changes_base : {"pissa", "olora", "corda", "loftq"}) {
      if (init->as_string().starts_with(changes_base)) refuse("init_lora_weights", "changes the model's own weights");
    }
  }
  if (!bad.empty()) fail_data("[lora] " + file + " asks for what there is not:" + bad);
}

// The number that a rank_pattern or alpha_pattern has for a module, as peft looks it up.
std::optional<double> from_pattern(const Json& j, const char* key, const std::string& module) {
  const Json* patterns = j.find(key);
  if (patterns == nullptr || !patterns->is_object()) return std::nullopt;
  for (const auto& [pattern, value] : patterns->items()) {
    try {
      if (std::regex_match(module, std::regex("(.*\\.)?(" + pattern + ")"))) return value.as_double();
    } catch (const std::regex_error&) {
      fail_data(fmt::format("[lora] {}: {} is no regular expression", key, io::quote_name(pattern)));
    }
  }
  return std::nullopt;
}

// A string is one regular expression: true.
bool read_modules(const Json& j, const char* key, std::vector<std::string>& names) {
  const Json* m = j.find(key);
  if (m == nullptr || m->is_null()) return false;
  if (m->is_string()) names.push_back(m->as_string());
  for (size_t i = 0; m->is_array() && i < m->size(); ++i) names.push_back(m->at(i).as_string());
  return m->is_string();
}

LoraSettings read_settings(const Json& j) {
  LoraSettings s;
  s.rank = j.integer_or("r", 8);
  s.alpha = j.number_or("lora_alpha", 8);
  s.rslora = j.boolean_or("use_rslora", false);
  s.dropout = j.number_or("lora_dropout", 0);
  s.base_model = j.string_or("base_model_name_or_path", "");
  s.targets_are_pattern = read_modules(j, "target_modules", s.targets);
  s.exclude_is_pattern = read_modules(j, "exclude_modules", s.exclude);
  return s;
}

struct Key {
  std::string module;
  bool is_A = false;
};

// base_model.model.MODULE.lora_A.weight or ….lora_embedding_A
std::optional<Key> parse_key(const std::string& key) {
  if (!key.starts_with(kKeyPrefix)) return std::nullopt;
  for (const auto& [suffix, is_A] : {std::pair{".lora_A.weight", true},
                                     {".lora_B.weight", false},
                                     {".lora_embedding_A", true},
                                     {".lora_embedding_B", false}}) {
    if (!key.ends_with(suffix)) continue;
    const size_t at = std::string(kKeyPrefix).size();
    const size_t end = key.size() - std::string(suffix).size();
    if (end <= at) return std::nullopt;
    std::string module = key.substr(at, end - at);
    if (module == "backbone.embedding") module = "backbone.embeddings";
    return Key{std::move(module), is_A};
  }
  return std::nullopt;
}

// f32, without dimensions of 1 beyond the second: [r, 1, W] -> [r, W], [C, r, 1] -> [C, r].
Tensor matrix(const Tensor& t) {
  const Tensor f = to_f32(t);
  if (f.rank() != 3) return f;
  if (f.dim(1) == 1) return f.reshape({f.dim(0), f.dim(2)});
  return f.dim(2) == 1 ? f.reshape({f.dim(0), f.dim(1)}) : f;
}

void read_factors(const fs::path& folder, const ModelSpec& spec, Adapter& a) {
  const fs::path config_file = folder / kAdapterConfig;
  const Json config = read_config(config_file);
  refuse_variants(config, config_file.string());
  a.settings = read_settings(config);
  std::map<std::string, std::string> parameters;  // by module
  for (const AdaptableParam& p : adaptable_params(spec)) parameters[p.module] = p.name;
  std::string problems;
  for (const auto& [key, tensor] : io::read_safetensors(folder / kAdapterWeights)) {
    const std::optional<Key> k = parse_key(key);
    const auto p = k ? parameters.find(k->module) : parameters.end();
    if (p == parameters.end()) {
      problems += "\n  extra: " + io::quote_name(key) + " " + tensor.shape().str() +
                  " belongs to nothing that an adapter of this model may change";
      continue;
    }
    LowRankFactors& f = a.factors[p->second];
    (k->is_A ? f.A : f.B) = matrix(tensor);
    const double alpha = from_pattern(config, "alpha_pattern", k->module).value_or(a.settings.alpha);
    if (k->is_A) f.scale = static_cast<float>(scale_of(tensor.dim(0), alpha, a.settings.rslora));
  }
  for (const auto& [name, f] : a.factors) {
    if (!f.A.defined()) problems += "\n  missing: A of " + name;
    if (!f.B.defined()) problems += "\n  missing: B of " + name;
  }
  if (!problems.empty()) fail_data("[lora] " + (folder / kAdapterWeights).string() + ":" + problems);
}

Json modules_json(const std::vector<std::string>& names, bool are_pattern) {
  if (are_pattern) return Json(names.front());
  Json list = Json::array();
  for (const std::string& n : names) list.push(Json(n));
  return list;
}

std::string module_of(const std::string& parameter) {
  return parameter == kEmbeddingName ? "backbone.embeddings" : parameter.substr(0, parameter.rfind('.'));
}

// What parameters have that differs from the settings.
void set_patterns(const Adapter& a, Json& j) {
  Json ranks = Json::object(), alphas = Json::object();
  const LoraSettings& s = a.settings;
  for (const auto& [name, f] : a.factors) {
    const int64_t r = f.rank();
    if (r != s.rank) ranks.set(module_of(name), Json(r));
    if (static_cast<float>(scale_of(r, s.alpha, s.rslora)) != f.scale) {
      alphas.set(module_of(name), Json(static_cast<double>(f.scale) / scale_of(r, 1, s.rslora)));
    }
  }
  j.set("alpha_pattern", std::move(alphas));
  j.set("rank_pattern", std::move(ranks));
}

Json config_of(const Adapter& a) {
  const LoraSettings& s = a.settings;
  Json j = Json::object();
  set_patterns(a, j);
  j.set("auto_mapping", Json());
  j.set("base_model_name_or_path", s.base_model.empty() ? Json() : Json(s.base_model));
  j.set("bias", Json("none"));
  if (!s.exclude.empty()) j.set("exclude_modules", modules_json(s.exclude, s.exclude_is_pattern));
  j.set("fan_in_fan_out", Json(false));
  j.set("inference_mode", Json(true));
  j.set("init_lora_weights", Json(true));
  j.set("lora_alpha", Json(s.alpha));
  j.set("lora_dropout", Json(s.dropout));
  j.set("modules_to_save", Json());
  j.set("peft_type", Json("LORA"));
  j.set("r", Json(s.rank));
  j.set("target_modules", modules_json(s.targets, s.targets_are_pattern));
  j.set("task_type", Json("CAUSAL_LM"));
  j.set("use_dora", Json(false));
  j.set("use_rslora", Json(s.rslora));
  return j;
}

std::vector<io::NamedTensor> tensors_of(const Adapter& a) {
  std::vector<io::NamedTensor> all;
  for (const auto& [name, f] : a.factors) {
    const bool table = name == kEmbeddingName, conv = name.ends_with("conv1d.weight");
    const std::string key = kKeyPrefix + module_of(name) + (table ? ".lora_embedding_" : ".lora_");
    const std::string end = table ? "" : ".weight";
    const int64_t r = f.rank();
    all.push_back({key + "A" + end, conv ? f.A.reshape({r, 1, f.A.dim(1)}) : f.A});
    all.push_back({key + "B" + end, conv ? f.B.reshape({f.B.dim(0), r, 1}) : f.B});
  }
  return all;
}

}  // namespace

Adapter read_adapter(const fs::path& folder, const ModelSpec& spec) {
  Adapter a;
  a.name = (folder.has_filename() ? folder : folder.parent_path()).filename().string();
  const bool factors = fs::exists(folder / kAdapterConfig), states = fs::exists(folder / kInitialStates);
  if (!factors && !states) {
    throw Error(ErrorCode::kFailed, fmt::format("[lora] {} holds no adapter: neither {} nor {}", folder.string(),
                                                kAdapterConfig, kInitialStates));
  }
  if (factors) read_factors(folder, spec, a);
  if (states) {
    for (const auto& [name, t] : io::read_safetensors(folder / kInitialStates)) a.states[name] = to_f32(t);
  }
  check_adapter(a, spec);
  return a;
}

void write_adapter(const fs::path& folder, const Adapter& a, const io::Poll& poll) {
  fs::create_directories(folder);
  if (!a.factors.empty()) {
    io::write_safetensors(folder / kAdapterWeights, tensors_of(a), {{"format", "pt"}}, poll);
    io::write_file(folder / kAdapterConfig, config_of(a).dump(2) + "\n");
  }
  if (a.states.empty()) return;
  std::vector<io::NamedTensor> states;
  for (const auto& [name, t] : a.states) states.push_back({name, t});
  io::write_safetensors(folder / kInitialStates, states, {{"format", "krait"}}, poll);
}

}  // namespace krait
