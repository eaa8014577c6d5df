// Checkpoints of the original code: config.json with d_model, n_layer, ssm_cfg (spec/mamba.md §1.1, §1.2).
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <limits>

#include "krait/core/error.h"
#include "krait/models/family.h"

namespace krait {
namespace {

using io::Json;

bool matches(const io::Checkpoint& c) {
  return c.gguf() == nullptr && !c.config().find("model_type") && c.config().find("d_model") &&
         c.config().find("n_layer");
}

// Every key of an object must be known: a setting that nothing reads is an error, not ignored.
template <size_t n>
void refuse_unknown(const Json& object, const char* where, const std::array<const char*, n>& known) {
  for (const auto& [key, value] : object.items()) {
    bool ok = false;
    for (const char* k : known) ok = ok || key == k;
    if (!ok) fail_data(fmt::format("[config] {} has '{}', which this architecture does not know", where, key));
  }
}

void parse_mamba1(ModelSpec& spec, const Json& s) {
  refuse_unknown(s, "ssm_cfg",
                 std::array{"layer", "d_state", "d_conv", "expand", "dt_rank", "dt_min", "dt_max", "dt_init",
                            "dt_scale", "dt_init_floor", "conv_bias", "bias", "use_fast_path"});
  Mamba1Settings m;
  m.d_inner = s.integer_or("expand", 2) * spec.d_model;
  m.d_state = s.integer_or("d_state", 16);
  m.d_conv = s.integer_or("d_conv", 4);
  const Json* rank = s.find("dt_rank");
  m.dt_rank = rank && !rank->is_string() ? rank->as_integer() : round_up(spec.d_model, 16) / 16;
  m.bias = s.boolean_or("bias", false);
  m.conv_bias = s.boolean_or("conv_bias", true);
  m.dt_min = s.number_or("dt_min", m.dt_min);
  m.dt_max = s.number_or("dt_max", m.dt_max);
  m.dt_init_floor = s.number_or("dt_init_floor", m.dt_init_floor);
  m.dt_scale = s.number_or("dt_scale", m.dt_scale);
  spec.architecture = "mamba";
  for (int64_t i = 0; i < spec.n_layer; ++i) push_mamba1(spec, i, m);
}

void parse_mamba2(ModelSpec& spec, const Json& s) {
  refuse_unknown(s, "ssm_cfg",
                 std::array{"layer",
                            "d_state",
                            "d_conv",
                            "conv_init",
                            "expand",
                            "headdim",
                            "d_ssm",
                            "ngroups",
                            "A_init_range",
                            "D_has_hdim",
                            "rmsnorm",
                            "norm_before_gate",
                            "dt_min",
                            "dt_max",
                            "dt_init_floor",
                            "dt_limit",
                            "bias",
                            "conv_bias",
                            "chunk_size",
                            "use_mem_eff_path",
                            "learnable_init_states"});
  Mamba2Settings m;
  m.d_inner = s.integer_or("expand", 2) * spec.d_model;
  const Json* d_ssm = s.find("d_ssm");
  m.d_ssm = d_ssm && !d_ssm->is_null() ? d_ssm->as_integer() : m.d_inner;
  m.headdim = s.integer_or("headdim", 64);
  check_positive("ssm_cfg.headdim", m.headdim);
  m.n_heads = m.d_ssm / m.headdim;
  m.d_state = s.integer_or("d_state", 128);
  m.n_groups = s.integer_or("ngroups", 1);
  m.d_conv = s.integer_or("d_conv", 4);
  m.D_has_hdim = s.boolean_or("D_has_hdim", false);
  m.rmsnorm = s.boolean_or("rmsnorm", true);
  m.norm_before_gate = s.boolean_or("norm_before_gate", false);
  m.bias = s.boolean_or("bias", false);
  m.conv_bias = s.boolean_or("conv_bias", true);
  m.learned_initial_state = s.boolean_or("learnable_init_states", false);
  m.dt_limit_max = std::numeric_limits<double>::infinity();
  if (const Json* limit = s.find("dt_limit")) {
    m.dt_limit_min = limit->at(0).as_double();
    m.dt_limit_max = limit->at(1).as_double();
  }
  if (const Json* range = s.find("A_init_range")) {
    m.A_init_min = range->at(0).as_double();
    m.A_init_max = range->at(1).as_double();
    if (!(m.A_init_min > 0 && m.A_init_min <= m.A_init_max && std::isfinite(m.A_init_max)))
      fail_data(fmt::format("[config] ssm_cfg.A_init_range is [{}, {}], expected 0 < low <= high", m.A_init_min,
                            m.A_init_max));
  }
  m.dt_min = s.number_or("dt_min", m.dt_min);
  m.dt_max = s.number_or("dt_max", m.dt_max);
  m.dt_init_floor = s.number_or("dt_init_floor", m.dt_init_floor);
  spec.architecture = "mamba2";
  for (int64_t i = 0; i < spec.n_layer; ++i) push_mamba2(spec, i, m);
}

void parse_mamba3(ModelSpec& spec, const Json& s) {
  refuse_unknown(s, "ssm_cfg",
                 std::array{"layer", "d_state", "expand", "headdim", "ngroups", "rope_fraction", "dt_min", "dt_max",
                            "dt_init_floor", "A_floor", "A_activation", "is_outproj_norm", "is_mimo", "mimo_rank",
                            "fuse_pregate_headwise_norm", "chunk_size", "dropout"});
  Mamba3Settings m;
  m.d_inner = s.integer_or("expand", 2) * spec.d_model;
  m.headdim = s.integer_or("headdim", 64);
  check_positive("ssm_cfg.headdim", m.headdim);
  m.n_heads = m.d_inner / m.headdim;
  m.d_state = s.integer_or("d_state", 128);
  m.n_groups = s.integer_or("ngroups", 1);
  const double rope = s.number_or("rope_fraction", 0.5);
  if (rope != 0.5 && rope != 1.0)
    fail_data(fmt::format("[config] ssm_cfg.rope_fraction is {}, expected 0.5 or 1", rope));
  const auto rotated = static_cast<int64_t>(static_cast<double>(m.d_state) * rope);
  m.n_angles = rotated / 2;  // = floor_even(N·rope_fraction) / 2
  m.is_mimo = s.boolean_or("is_mimo", false);
  m.mimo_rank = s.integer_or("mimo_rank", 4);
  m.is_outproj_norm = s.boolean_or("is_outproj_norm", false);
  m.A_floor = s.number_or("A_floor", m.A_floor);
  // The form of A before the published models had no name in the configuration; ours to tell it apart (trap C5).
  const std::string A = s.string_or("A_activation", "heavy_tail");
  if (A != "heavy_tail" && A != "softplus") {
    fail_data("[config] ssm_cfg.A_activation is '" + A +
              "', expected heavy_tail (published models) or softplus (older code)");
  }
  m.softplus_A = A == "softplus";
  m.dt_min = s.number_or("dt_min", m.dt_min);
  m.dt_max = s.number_or("dt_max", m.dt_max);
  m.dt_init_floor = s.number_or("dt_init_floor", m.dt_init_floor);
  spec.architecture = "mamba3";
  for (int64_t i = 0; i < spec.n_layer; ++i) push_mamba3(spec, i, m);
}

ModelSpec parse(const io::Checkpoint& c) {
  const Json& j = c.config();
  ModelSpec spec;
  spec.d_model = j.integer_or("d_model", 2560);
  spec.n_layer = j.integer_or("n_layer", 64);
  spec.vocab_size = j.integer_or("vocab_size", 50277);
  const int64_t multiple = j.integer_or("pad_vocab_size_multiple", 8);
  check_positive("d_model", spec.d_model);
  check_positive("n_layer", spec.n_layer, kMostLayers);
  check_positive("vocab_size", spec.vocab_size);
  check_positive("pad_vocab_size_multiple", multiple);
  spec.padded_vocab_size = round_up(spec.vocab_size, multiple);
  spec.rms_norm = j.boolean_or("rms_norm", true);
  spec.tie_embeddings = j.boolean_or("tie_embeddings", true);
  if (const Json* attn = j.find("attn_layer_idx"); attn && attn->size() > 0) {
    fail_data("[config] attn_layer_idx: layers of attention are not supported yet (mamba2attn, transformerpp)");
  }
  const Json* s = j.find("ssm_cfg");
  const Json empty = Json::object();
  if (s == nullptr) s = &empty;
  const std::string layer = s->string_or("layer", "Mamba1");
  if (layer == "Mamba1") {
    parse_mamba1(spec, *s);
  } else if (layer == "Mamba2") {
    parse_mamba2(spec, *s);
  } else if (layer == "Mamba3") {
    parse_mamba3(spec, *s);
  } else {
    fail_data("[config] ssm_cfg.layer is '" + layer + "', expected Mamba1, Mamba2 or Mamba3");
  }
  const int64_t d_intermediate = j.integer_or("d_intermediate", 0);
  if (d_intermediate > 0) {
    check_positive("d_intermediate", d_intermediate);
    interleave_mlp(spec, round_up(d_intermediate, 128));  // the original rounds the width up (trap C7)
  }
  return spec;
}

WeightSource source(const io::Checkpoint&, const ModelSpec&, const std::string& canonical) {
  return {canonical, false};
}

}  // namespace

const FamilyInfo& state_spaces_family() {
  static const FamilyInfo info{"state-spaces", matches, parse, source};
  return info;
}

}  // namespace krait
