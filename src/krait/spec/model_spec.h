// ModelSpec: a model as data. Everything between the embedding and the head is a list of sub-blocks, each
// residual += mixer(norm(residual)).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "krait/spec/mixer_config.h"
#include "krait/spec/param_spec.h"

namespace krait {

struct SubBlockSpec {
  std::string mixer;  // a name in mixers/registry.h
  MixerConfig config;
  std::string prefix;  // of the mixer's parameters: "backbone.layers.0.mixer"
  std::string norm;    // of the norm's: "backbone.layers.0.norm"
};

struct ModelSpec {
  std::string architecture;  // "mamba", "mamba2", "mamba3", "falcon_mamba"
  int64_t d_model = 0;
  int64_t n_layer = 0;            // layers as the checkpoint counts them (a layer may be two sub-blocks)
  int64_t vocab_size = 0;         // rows that stand for tokens
  int64_t padded_vocab_size = 0;  // rows stored; ids >= vocab_size are never sampled
  bool rms_norm = true;           // else LayerNorm with biases
  double norm_eps = 1e-5;
  bool tie_embeddings = true;
  std::vector<SubBlockSpec> blocks;
  std::vector<int32_t> eos_ids;  // from the checkpoint's config; may be empty
};

// Canonical parameter names are those of the original checkpoints.
inline constexpr const char* kEmbeddingName = "backbone.embedding.weight";
inline constexpr const char* kFinalNormName = "backbone.norm_f";
inline constexpr const char* kHeadName = "lm_head.weight";

// n rounded up to a multiple of m.
constexpr int64_t round_up(int64_t n, int64_t m) { return (n + m - 1) / m * m; }

}  // namespace krait
