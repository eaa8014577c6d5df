// What the dialects of one generation share.
#include <fmt/format.h>

#include "krait/core/error.h"
#include "krait/models/family.h"

namespace krait {
namespace {

void push(ModelSpec& spec, int64_t layer, const char* mixer, MixerConfig config, const char* part, const char* norm) {
  const std::string prefix = layer_prefix(layer);
  spec.blocks.push_back({mixer, std::move(config), prefix + "." + part, prefix + "." + norm});
}

MixerConfig dt_settings(double dt_min, double dt_max, double floor) {
  return MixerConfig().set("dt_min", dt_min).set("dt_max", dt_max).set("dt_init_floor", floor);
}

double num(int64_t v) { return static_cast<double>(v); }

}  // namespace

std::string layer_prefix(int64_t layer) { return fmt::format("backbone.layers.{}", layer); }

void push_mamba1(ModelSpec& spec, int64_t layer, const Mamba1Settings& s) {
  MixerConfig c = dt_settings(s.dt_min, s.dt_max, s.dt_init_floor);
  c.set("d_inner", num(s.d_inner)).set("d_state", num(s.d_state)).set("d_conv", num(s.d_conv));
  c.set("dt_rank", num(s.dt_rank)).set("bias", s.bias).set("conv_bias", s.conv_bias);
  c.set("dt_b_c_norm_eps", s.dt_b_c_norm_eps).set("dt_scale", s.dt_scale);
  push(spec, layer, "mamba1", std::move(c), "mixer", "norm");
}

void push_mamba2(ModelSpec& spec, int64_t layer, const Mamba2Settings& s) {
  MixerConfig c = dt_settings(s.dt_min, s.dt_max, s.dt_init_floor);
  c.set("d_inner", num(s.d_inner)).set("d_ssm", num(s.d_ssm)).set("n_heads", num(s.n_heads));
  c.set("headdim", num(s.headdim)).set("d_state", num(s.d_state)).set("n_groups", num(s.n_groups));
  c.set("d_conv", num(s.d_conv)).set("bias", s.bias).set("conv_bias", s.conv_bias);
  c.set("D_has_hdim", s.D_has_hdim).set("rmsnorm", s.rmsnorm).set("norm_before_gate", s.norm_before_gate);
  c.set("learned_initial_state", s.learned_initial_state).set("dt_limit_min", s.dt_limit_min);
  c.set("dt_limit_max", s.dt_limit_max).set("norm_eps", s.norm_eps);
  c.set("A_init_min", s.A_init_min).set("A_init_max", s.A_init_max);
  push(spec, layer, "mamba2", std::move(c), "mixer", "norm");
}

void push_mamba3(ModelSpec& spec, int64_t layer, const Mamba3Settings& s) {
  MixerConfig c = dt_settings(s.dt_min, s.dt_max, s.dt_init_floor);
  c.set("d_inner", num(s.d_inner)).set("n_heads", num(s.n_heads)).set("headdim", num(s.headdim));
  c.set("d_state", num(s.d_state)).set("n_groups", num(s.n_groups)).set("n_angles", num(s.n_angles));
  c.set("is_mimo", s.is_mimo).set("mimo_rank", num(s.is_mimo ? s.mimo_rank : 1));
  c.set("is_outproj_norm", s.is_outproj_norm).set("softplus_A", s.softplus_A).set("A_floor", s.A_floor);
  c.set("norm_eps", s.norm_eps);
  push(spec, layer, "mamba3", std::move(c), "mixer", "norm");
}

void push_gated_mlp(ModelSpec& spec, int64_t layer, int64_t d_hidden) {
  push(spec, layer, "gated_mlp", MixerConfig().set("d_hidden", num(d_hidden)), "mlp", "norm2");
}

void interleave_mlp(ModelSpec& spec, int64_t d_hidden) {
  ModelSpec with;
  for (int64_t i = 0; i < spec.n_layer; ++i) {
    with.blocks.push_back(spec.blocks[static_cast<size_t>(i)]);
    push_gated_mlp(with, i, d_hidden);
  }
  spec.blocks = std::move(with.blocks);
}

void check_uniform(const ModelSpec& s) {
  const size_t layers = static_cast<size_t>(s.n_layer);
  const bool mlp = s.blocks.size() == 2 * layers;
  if (layers == 0 || (!mlp && s.blocks.size() != layers)) {
    fail_usage(fmt::format("[export] {} layers of {} sub-blocks have no common form", layers, s.blocks.size()));
  }
  const char* mixer = s.architecture == "mamba2" ? "mamba2" : s.architecture == "mamba3" ? "mamba3" : "mamba1";
  for (size_t i = 0; i < s.blocks.size(); ++i) {
    const bool second = mlp && i % 2 == 1;
    const SubBlockSpec &b = s.blocks[i], &first = s.blocks[second ? 1 : 0];
    const std::string prefix = layer_prefix(static_cast<int64_t>(mlp ? i / 2 : i));
    const bool named =
        b.prefix == prefix + (second ? ".mlp" : ".mixer") && b.norm == prefix + (second ? ".norm2" : ".norm");
    if (!named || b.mixer != (second ? "gated_mlp" : mixer) || !(b.config == first.config)) {
      fail_usage(
          fmt::format("[export] sub-block {} ({}) differs from the others: no form can express that", i, b.mixer));
    }
  }
}

void check_positive(const char* name, int64_t value, int64_t most) {
  if (value >= 1 && value <= most) return;
  fail_data(fmt::format("[config] {} is {}, expected 1 to {}", name, value, most));
}

const FamilyInfo& find_family(const io::Checkpoint& c) {
  for (const FamilyInfo* f : {&gguf_family(), &transformers_family(), &state_spaces_family()}) {
    if (f->matches(c)) return *f;
  }
  fail_data("[config] " + c.path().string() +
            ": config.json has neither 'model_type' (transformers) nor 'd_model' and 'n_layer' (state-spaces)");
}

}  // namespace krait
