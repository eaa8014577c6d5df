#include "krait/models/export.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "krait/core/error.h"
#include "krait/io/atomic_file.h"
#include "krait/io/safetensors.h"
#include "krait/models/family.h"

namespace krait {
namespace {

using io::Json;

const MixerConfig& first_mixer(const ModelSpec& s) {
  check_uniform(s);
  return s.blocks.front().config;
}

int64_t mlp_width(const ModelSpec& s) {
  return s.blocks.size() > 1 && s.blocks[1].mixer == "gated_mlp" ? s.blocks[1].config.integer("d_hidden") : 0;
}

// Why the transformers form cannot express the model, or "".
std::string not_transformers(const ModelSpec& s) {
  const MixerConfig& c = first_mixer(s);
  if (s.architecture == "mamba3") return "it has no Mamba-3";
  if (!s.rms_norm) return "its norms are RMS norms";
  if (mlp_width(s) > 0) return "it has no MLP blocks";
  if (s.architecture != "mamba2") return "";
  if (c.number("d_ssm") != c.number("d_inner")) return "it has no d_ssm < d_inner";
  if (c.flag("D_has_hdim")) return "it has no D per channel";
  if (c.flag("norm_before_gate")) return "it has no norm before the gate";
  if (!c.flag("rmsnorm")) return "it has no mixer without gated norm";
  if (c.flag("learned_initial_state")) return "it has no learned initial states";
  if (c.number("norm_eps") != s.norm_eps) return "it has one epsilon for all norms";
  return "";
}

void set_dt(Json& j, const MixerConfig& c, const char* prefix, const char* floor) {
  j.set(fmt::format("{}_min", prefix), Json(c.number("dt_min")));
  j.set(fmt::format("{}_max", prefix), Json(c.number("dt_max")));
  j.set(floor, Json(c.number("dt_init_floor")));
}

Json pair(double low, double high) {
  Json j = Json::array();
  j.push(Json(low));
  j.push(Json(high));
  return j;
}

bool has_dt_limit(const MixerConfig& c) {
  return c.number("dt_limit_min") > 0 || std::isfinite(c.number("dt_limit_max"));
}

Json transformers_config(const ModelSpec& s) {
  const MixerConfig& c = first_mixer(s);
  Json j = Json::object();
  const bool mamba2 = s.architecture == "mamba2";
  const char* cls = mamba2                      ? "Mamba2ForCausalLM"
                    : s.architecture == "mamba" ? "MambaForCausalLM"
                                                : "FalconMambaForCausalLM";
  Json classes = Json::array();
  classes.push(Json(cls));
  j.set("architectures", std::move(classes));
  j.set("model_type", Json(s.architecture));
  j.set("hidden_size", Json(s.d_model));
  j.set("num_hidden_layers", Json(s.n_layer));
  j.set("vocab_size", Json(s.padded_vocab_size));
  j.set("layer_norm_epsilon", Json(s.norm_eps));
  j.set("tie_word_embeddings", Json(s.tie_embeddings));
  const int64_t E = c.integer("d_inner");
  j.set("expand",
        E % s.d_model == 0 ? Json(E / s.d_model) : Json(static_cast<double>(E) / static_cast<double>(s.d_model)));
  j.set("state_size", Json(c.integer("d_state")));
  j.set("conv_kernel", Json(c.integer("d_conv")));
  j.set("use_bias", Json(c.flag("bias")));
  j.set("use_conv_bias", Json(c.flag("conv_bias")));
  j.set("hidden_act", Json("silu"));
  j.set("residual_in_fp32", Json(true));
  set_dt(j, c, "time_step", "time_step_floor");
  if (mamba2) {
    j.set("num_heads", Json(c.integer("n_heads")));
    j.set("head_dim", Json(c.integer("headdim")));
    j.set("n_groups", Json(c.integer("n_groups")));
    j.set("rms_norm", Json(true));
    if (has_dt_limit(c)) j.set("time_step_limit", pair(c.number("dt_limit_min"), c.number("dt_limit_max")));
  } else {
    j.set("intermediate_size", Json(c.integer("d_inner")));
    j.set("time_step_rank", Json(c.integer("dt_rank")));
    j.set("time_step_scale", Json(c.number("dt_scale")));
    if (c.number("dt_b_c_norm_eps") > 0) j.set("mixer_rms_eps", Json(c.number("dt_b_c_norm_eps")));
  }
  if (!s.eos_ids.empty()) {
    Json eos = Json::array();
    for (const int32_t id : s.eos_ids) eos.push(Json(int64_t{id}));
    j.set("eos_token_id", s.eos_ids.size() == 1 ? Json(int64_t{s.eos_ids[0]}) : std::move(eos));
  }
  return j;
}

double rope_fraction(const MixerConfig& c) {
  const int64_t N = c.integer("d_state"), F = c.integer("n_angles");
  if (F == N / 4) return 0.5;
  if (F == N / 2) return 1.0;
  fail_usage(fmt::format("[export] {} angles for {} states: the state-spaces form has a quarter or a half", F, N));
}

Json ssm_cfg(const ModelSpec& s) {
  const MixerConfig& c = first_mixer(s);
  Json j = Json::object();
  j.set("layer", Json(s.architecture == "mamba3" ? "Mamba3" : s.architecture == "mamba2" ? "Mamba2" : "Mamba1"));
  j.set("d_state", Json(c.integer("d_state")));
  j.set("expand", Json(c.integer("d_inner") / s.d_model));
  set_dt(j, c, "dt", "dt_init_floor");
  if (s.architecture == "mamba3") {
    j.set("headdim", Json(c.integer("headdim")));
    j.set("ngroups", Json(c.integer("n_groups")));
    j.set("rope_fraction", Json(rope_fraction(c)));
    j.set("A_floor", Json(c.number("A_floor")));
    j.set("is_outproj_norm", Json(c.flag("is_outproj_norm")));
    j.set("is_mimo", Json(c.flag("is_mimo")));
    if (c.flag("is_mimo")) j.set("mimo_rank", Json(c.integer("mimo_rank")));
    if (c.flag("softplus_A")) j.set("A_activation", Json("softplus"));
    return j;
  }
  j.set("d_conv", Json(c.integer("d_conv")));
  j.set("bias", Json(c.flag("bias")));
  j.set("conv_bias", Json(c.flag("conv_bias")));
  if (s.architecture != "mamba2") {
    j.set("dt_rank", Json(c.integer("dt_rank")));
    j.set("dt_scale", Json(c.number("dt_scale")));
    return j;
  }
  j.set("headdim", Json(c.integer("headdim")));
  j.set("d_ssm", Json(c.integer("d_ssm")));
  j.set("ngroups", Json(c.integer("n_groups")));
  j.set("D_has_hdim", Json(c.flag("D_has_hdim")));
  j.set("rmsnorm", Json(c.flag("rmsnorm")));
  j.set("norm_before_gate", Json(c.flag("norm_before_gate")));
  if (c.flag("learned_initial_state")) j.set("learnable_init_states", Json(true));
  j.set("A_init_range", pair(c.number("A_init_min"), c.number("A_init_max")));
  if (has_dt_limit(c)) j.set("dt_limit", pair(c.number("dt_limit_min"), c.number("dt_limit_max")));
  return j;
}

Json state_spaces_config(const ModelSpec& s) {
  if (s.architecture == "falcon_mamba") fail_usage("[export] the state-spaces form has no FalconMamba");
  const MixerConfig& c = first_mixer(s);
  const bool gated = s.architecture != "mamba";
  if (s.norm_eps != 1e-5 || (gated && c.number("norm_eps") != 1e-5)) {
    fail_usage(
        fmt::format("[export] the state-spaces form has epsilon 1e-5 everywhere, this model has {}", s.norm_eps));
  }
  if (c.integer("d_inner") % s.d_model != 0) fail_usage("[export] the state-spaces form needs a whole expand factor");
  if (mlp_width(s) % 128 != 0) {  // that form's readers round it up (trap C7)
    fail_usage(fmt::format("[export] the state-spaces form has MLP widths that are multiples of 128, this model has {}",
                           mlp_width(s)));
  }
  int64_t multiple = 1;  // a padding that leads from the one vocabulary to the other
  for (const int64_t m : {8, 16, 32, 64, 128, 256}) {
    if (multiple == 1 && round_up(s.vocab_size, m) == s.padded_vocab_size) multiple = m;
  }
  if (round_up(s.vocab_size, multiple) != s.padded_vocab_size) {
    fail_usage(fmt::format("[export] vocabulary {} padded to {} is no multiple the state-spaces form can express",
                           s.vocab_size, s.padded_vocab_size));
  }
  Json j = Json::object();
  j.set("d_model", Json(s.d_model));
  j.set("d_intermediate", Json(mlp_width(s)));
  j.set("n_layer", Json(s.n_layer));
  j.set("vocab_size", Json(s.vocab_size));
  j.set("ssm_cfg", ssm_cfg(s));
  j.set("attn_layer_idx", Json::array());
  j.set("attn_cfg", Json::object());
  j.set("rms_norm", Json(s.rms_norm));
  j.set("residual_in_fp32", Json(true));
  j.set("fused_add_norm", Json(true));
  j.set("pad_vocab_size_multiple", Json(multiple));
  j.set("tie_embeddings", Json(s.tie_embeddings));
  return j;
}

bool as_transformers(const ModelSpec& s, CheckpointForm form) {
  const std::string why_not = not_transformers(s);
  if (form == CheckpointForm::kTransformers && !why_not.empty()) {
    fail_usage("[export] the transformers form cannot express this model: " + why_not);
  }
  return form != CheckpointForm::kStateSpaces && why_not.empty();
}

}  // namespace

Json config_json(const ModelSpec& s, CheckpointForm form) {
  return as_transformers(s, form) ? transformers_config(s) : state_spaces_config(s);
}

void save_weights(const ModelSpec& s, const ParamStore& params, const std::filesystem::path& file, CheckpointForm form,
                  const io::Poll& poll) {
  const bool transformers = as_transformers(s, form);
  std::vector<io::NamedTensor> tensors;
  for (const ParamSpec& p : model_params(s)) {
    const Param& param = params.get(p.name);
    const bool rename = transformers && p.name == kEmbeddingName;
    tensors.push_back(
        {rename ? "backbone.embeddings.weight" : p.name, param.neg_exp ? params.f32(p.name) : param.value});
  }
  io::write_safetensors(file, tensors, {{"format", "pt"}}, poll);
}

void save_folder(const ModelSpec& s, const ParamStore& params, const std::filesystem::path& out, CheckpointForm form,
                 const io::Poll& poll) {
  const std::string config = config_json(s, form).dump(2) + "\n";
  for (const char* name : {"config.json", "model.safetensors"}) {
    if (std::filesystem::exists(out / name)) fail_usage("[export] " + (out / name).string() + " exists already");
  }
  std::filesystem::create_directories(out);
  save_weights(s, params, out / "model.safetensors", form, poll);
  io::write_file(out / "config.json", config);
}

}  // namespace krait
