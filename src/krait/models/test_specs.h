// Small models of every kind and option, for the tests of this folder.
#pragma once
#include <filesystem>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "krait/core/rng.h"
#include "krait/core/thread_pool.h"
#include "krait/io/test_folder.h"
#include "krait/models/export.h"
#include "krait/models/family.h"
#include "krait/models/presets.h"

namespace krait::test {

namespace fs = std::filesystem;

using io::TestFolder;

inline ModelSpec shell(const std::string& architecture, int64_t vocab = 21, int64_t multiple = 8) {
  ModelSpec s;
  s.architecture = architecture;
  s.d_model = 12;
  s.n_layer = 2;
  s.vocab_size = vocab;
  s.padded_vocab_size = round_up(vocab, multiple);
  return s;
}

inline ModelSpec tiny_mamba1(Mamba1Settings m = {}) {
  ModelSpec s = shell(m.dt_b_c_norm_eps > 0 ? "falcon_mamba" : "mamba");
  if (m.d_inner == 0) m.d_inner = 24;
  m.d_state = 5;
  m.dt_rank = 3;
  for (int64_t i = 0; i < s.n_layer; ++i) push_mamba1(s, i, m);
  return s;
}

inline Mamba2Settings mamba2_settings() {
  Mamba2Settings m;
  m.d_inner = m.d_ssm = 24;
  m.n_heads = 6;
  m.headdim = 4;
  m.d_state = 5;
  m.dt_limit_max = std::numeric_limits<double>::infinity();
  return m;
}

inline ModelSpec tiny_mamba2(const Mamba2Settings& m = mamba2_settings()) {
  ModelSpec s = shell("mamba2");
  for (int64_t i = 0; i < s.n_layer; ++i) push_mamba2(s, i, m);
  return s;
}

inline Mamba3Settings mamba3_settings() {
  Mamba3Settings m;
  m.d_inner = 24;
  m.n_heads = 6;
  m.headdim = 4;
  m.d_state = 8;
  m.n_angles = 2;
  return m;
}

inline ModelSpec tiny_mamba3(const Mamba3Settings& m = mamba3_settings(), int64_t mlp = 0) {
  ModelSpec s = shell("mamba3");
  for (int64_t i = 0; i < s.n_layer; ++i) push_mamba3(s, i, m);
  if (mlp > 0) interleave_mlp(s, mlp);
  return s;
}

// One model for each option, by name.
inline std::vector<std::pair<std::string, ModelSpec>> all_tiny_specs() {
  std::vector<std::pair<std::string, ModelSpec>> all;
  Mamba1Settings one;
  all.emplace_back("mamba", tiny_mamba1());
  one.bias = true;
  one.conv_bias = false;
  one.dt_scale = 0.5;
  all.emplace_back("mamba biased", tiny_mamba1(one));
  one = {};
  one.d_inner = 36;
  all.emplace_back("mamba E = 3D", tiny_mamba1(one));
  one = {};
  one.dt_b_c_norm_eps = 1e-6;
  all.emplace_back("falcon_mamba", tiny_mamba1(one));
  all.back().second.tie_embeddings = false;
  all.back().second.eos_ids = {11, 3};
  all.emplace_back("mamba2", tiny_mamba2());
  Mamba2Settings two = mamba2_settings();
  two.n_groups = 2;
  two.d_conv = 3;
  two.bias = true;
  all.emplace_back("mamba2 G = 2", tiny_mamba2(two));
  all.back().second.norm_eps = 1e-6;
  for (SubBlockSpec& b : all.back().second.blocks) b.config.set("norm_eps", 1e-6);
  two = mamba2_settings();
  two.dt_limit_min = 0.01;
  two.dt_limit_max = 0.08;
  all.emplace_back("mamba2 dt_limit", tiny_mamba2(two));
  two = mamba2_settings();
  two.d_ssm = 16;
  two.n_heads = 4;
  two.D_has_hdim = two.norm_before_gate = two.learned_initial_state = true;
  all.emplace_back("mamba2 of all options", tiny_mamba2(two));
  two = mamba2_settings();
  two.rmsnorm = false;
  two.norm_eps = 1e-6;
  two.dt_min = 0.002;
  two.dt_max = 0.2;
  two.dt_init_floor = 0.0002;
  two.A_init_min = 0.5;
  two.A_init_max = 2;
  all.emplace_back("mamba2 without gated norm", tiny_mamba2(two));
  all.emplace_back("mamba2 with LayerNorm", tiny_mamba2());
  all.back().second.rms_norm = false;
  all.emplace_back("mamba3 SISO", tiny_mamba3());
  Mamba3Settings three = mamba3_settings();
  three.is_mimo = three.is_outproj_norm = true;
  three.n_groups = 2;
  three.mimo_rank = 3;
  three.n_angles = 4;
  three.A_floor = 1e-3;
  all.emplace_back("mamba3 MIMO, MLP", tiny_mamba3(three, 128));
  three = mamba3_settings();
  three.softplus_A = true;
  three.is_mimo = true;
  three.mimo_rank = 1;
  all.emplace_back("mamba3 of rank 1, old A", tiny_mamba3(three));
  return all;
}

// Fresh parameters with every vector moved off its constant.
inline ParamStore tiny_params(const ModelSpec& s, DType dtype = DType::kF32, uint64_t seed = 5) {
  static ThreadPool pool(1);
  ParamStore params = random_params(s, seed, dtype, pool);
  Rng rng(seed, 99);
  for (const ParamSpec& p : model_params(s)) {
    if (p.role != ParamRole::kVector) continue;
    Tensor t = params.get(p.name).value;
    for (int64_t i = 0; i < t.numel(); ++i) t.f32()[i] += 0.1f * static_cast<float>(rng.normal());
  }
  return params;
}

inline void expect_same_spec(const ModelSpec& a, const ModelSpec& b) {
  EXPECT_EQ(a.architecture, b.architecture);
  EXPECT_EQ(a.d_model, b.d_model);
  EXPECT_EQ(a.n_layer, b.n_layer);
  EXPECT_EQ(a.vocab_size, b.vocab_size);
  EXPECT_EQ(a.padded_vocab_size, b.padded_vocab_size);
  EXPECT_EQ(a.rms_norm, b.rms_norm);
  EXPECT_EQ(a.norm_eps, b.norm_eps);
  EXPECT_EQ(a.tie_embeddings, b.tie_embeddings);
  EXPECT_EQ(a.eos_ids, b.eos_ids);
  ASSERT_EQ(a.blocks.size(), b.blocks.size());
  for (size_t i = 0; i < a.blocks.size(); ++i) {
    EXPECT_EQ(a.blocks[i].mixer, b.blocks[i].mixer);
    EXPECT_EQ(a.blocks[i].prefix, b.blocks[i].prefix);
    EXPECT_EQ(a.blocks[i].norm, b.blocks[i].norm);
    for (const auto& [key, value] : a.blocks[i].config.values()) {
      EXPECT_EQ(value, b.blocks[i].config.number(key)) << key;
    }
    EXPECT_EQ(a.blocks[i].config.values().size(), b.blocks[i].config.values().size());
  }
}

}  // namespace krait::test
