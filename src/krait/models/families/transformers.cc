// Hugging Face folders: model_type mamba, mamba2, falcon_mamba (spec/mamba.md §2.1, §3.1).
#include <fmt/format.h>

#include <initializer_list>
#include <limits>
#include <utility>

#include "krait/core/error.h"
#include "krait/models/family.h"

namespace krait {
namespace {

using io::Json;

bool matches(const io::Checkpoint& c) { return c.gguf() == nullptr && c.config().find("model_type"); }

// Mamba-Codestral prefixes "model." to all names.
std::string name_prefix(const io::Checkpoint& c) { return c.has("model.backbone.norm_f.weight") ? "model." : ""; }

WeightSource source(const io::Checkpoint& c, const ModelSpec&, const std::string& canonical) {
  const std::string name = canonical == kEmbeddingName ? "backbone.embeddings.weight" : canonical;
  return {name_prefix(c) + name, false};
}

// The width of the mixer: the tensors decide; a config that says two things is an error only if the sharper one
// (intermediate_size) is wrong. FalconMamba-7B says expand 16 beside intermediate_size 2·D (trap C8).
int64_t inner_width(const io::Checkpoint& c, const Json& j, int64_t d_model) {
  const std::string out = name_prefix(c) + layer_prefix(0) + ".mixer.out_proj.weight";
  const Json* stated = j.find("intermediate_size");
  const int64_t expanded =
      stated ? stated->as_integer() : static_cast<int64_t>(j.number_or("expand", 2) * static_cast<double>(d_model));
  if (!c.has(out) || c.shape(out).rank() != 2) return expanded;
  const int64_t E = c.shape(out)[1];
  if (E != expanded) {
    fail_data(fmt::format("[config] {} is {}, but {} of config.json makes the inner width {}", out, c.shape(out).str(),
                          stated ? "intermediate_size" : "expand", expanded));
  }
  return E;
}

void read_dt(const Json& j, double& dt_min, double& dt_max, double& floor) {
  dt_min = j.number_or("time_step_min", dt_min);
  dt_max = j.number_or("time_step_max", dt_max);
  floor = j.number_or("time_step_floor", floor);
}

void parse_mamba1(const io::Checkpoint& c, const Json& j, ModelSpec& spec, bool falcon) {
  Mamba1Settings m;
  m.d_inner = inner_width(c, j, spec.d_model);
  m.d_state = j.integer_or("state_size", 16);
  m.d_conv = j.integer_or("conv_kernel", 4);
  const Json* rank = j.find("time_step_rank");
  m.dt_rank = rank && !rank->is_string() ? rank->as_integer() : round_up(spec.d_model, 16) / 16;
  m.bias = j.boolean_or("use_bias", false);
  m.conv_bias = j.boolean_or("use_conv_bias", true);
  m.dt_scale = j.number_or("time_step_scale", 1.0);
  if (falcon) m.dt_b_c_norm_eps = j.number_or("mixer_rms_eps", 1e-6);
  read_dt(j, m.dt_min, m.dt_max, m.dt_init_floor);
  for (int64_t i = 0; i < spec.n_layer; ++i) push_mamba1(spec, i, m);
}

void parse_mamba2(const Json& j, ModelSpec& spec) {
  Mamba2Settings m;
  m.n_heads = j.integer_or("num_heads", 128);
  m.headdim = j.integer_or("head_dim", 64);
  m.d_inner = m.n_heads * m.headdim;
  const double expanded = j.number_or("expand", 2) * static_cast<double>(spec.d_model);
  if (static_cast<double>(m.d_inner) != expanded) {
    fail_data(fmt::format("[config] num_heads {} x head_dim {} must be expand x hidden_size = {}", m.n_heads, m.headdim,
                          expanded));
  }
  m.d_ssm = m.d_inner;
  m.d_state = j.integer_or("state_size", 128);
  m.n_groups = j.integer_or("n_groups", 8);
  m.d_conv = j.integer_or("conv_kernel", 4);
  m.bias = j.boolean_or("use_bias", false);
  m.conv_bias = j.boolean_or("use_conv_bias", true);
  m.rmsnorm = j.boolean_or("rms_norm", true);
  m.norm_eps = spec.norm_eps;
  m.dt_limit_max = std::numeric_limits<double>::infinity();
  if (const Json* limit = j.find("time_step_limit")) {
    m.dt_limit_min = limit->at(0).as_double();
    m.dt_limit_max = limit->at(1).as_double();
  }
  read_dt(j, m.dt_min, m.dt_max, m.dt_init_floor);
  for (int64_t i = 0; i < spec.n_layer; ++i) push_mamba2(spec, i, m);
}

// Sizes that must be there: one error names all that are missing or no integers.
void read_sizes(const Json& j, std::initializer_list<std::pair<const char*, int64_t*>> sizes) {
  std::string problems;
  for (const auto& [key, target] : sizes) {
    try {
      *target = j.at(key).as_integer();
    } catch (const Error& e) {
      problems += fmt::format("\n  {}: {}", key, e.what());
    }
  }
  if (!problems.empty()) fail_data("[config] sizes that cannot be read:" + problems);
}

ModelSpec parse(const io::Checkpoint& c) {
  const Json& j = c.config();
  const std::string type = j.at("model_type").as_string();
  if (type != "mamba" && type != "mamba2" && type != "falcon_mamba") {
    fail_data("[config] model_type '" + type + "' is not supported yet; supported: mamba, mamba2, falcon_mamba");
  }
  if (const std::string act = j.string_or("hidden_act", "silu"); act != "silu") {
    fail_data("[config] hidden_act is '" + act + "', these architectures are defined with silu");
  }
  ModelSpec spec;
  spec.architecture = type;
  read_sizes(j,
             {{"hidden_size", &spec.d_model}, {"num_hidden_layers", &spec.n_layer}, {"vocab_size", &spec.vocab_size}});
  check_positive("hidden_size", spec.d_model);
  check_positive("num_hidden_layers", spec.n_layer, kMostLayers);
  check_positive("vocab_size", spec.vocab_size);
  spec.padded_vocab_size = spec.vocab_size;
  spec.norm_eps = j.number_or("layer_norm_epsilon", 1e-5);
  spec.tie_embeddings = j.boolean_or("tie_word_embeddings", type != "mamba2");
  if (const Json* eos = j.find("eos_token_id"); eos && !eos->is_null()) {  // an id or a list of them (trap C10)
    const size_t n = eos->is_array() ? eos->size() : 1;
    for (size_t i = 0; i < n; ++i) {
      spec.eos_ids.push_back(static_cast<int32_t>((eos->is_array() ? eos->at(i) : *eos).as_integer()));
    }
  }
  if (type == "mamba2") {
    parse_mamba2(j, spec);
  } else {
    parse_mamba1(c, j, spec, type == "falcon_mamba");
  }
  return spec;
}

}  // namespace

const FamilyInfo& transformers_family() {
  static const FamilyInfo info{"transformers", matches, parse, source};
  return info;
}

}  // namespace krait
