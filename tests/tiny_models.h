// Tiny models with random weights, one of each generation: whole-model tests that need no data.
#pragma once
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "krait/core/rng.h"
#include "krait/models/family.h"
#include "krait/models/presets.h"
#include "tests/test_models.h"

namespace krait::test {

inline const std::vector<std::string>& tiny_names() {
  static const std::vector<std::string> names = {"mamba1", "mamba2", "mamba3_siso", "mamba3_mimo"};
  return names;
}

// Two layers of width 16 over 29 ids, padded to 32. Every odd size that the generation allows.
inline ModelSpec tiny_spec(const std::string& name) {
  ModelSpec s;
  s.architecture = name.substr(0, 6) == "mamba1" ? "mamba" : name.substr(0, 6);
  s.d_model = 16;
  s.n_layer = 2;
  s.vocab_size = 29;
  s.padded_vocab_size = 32;
  s.tie_embeddings = false;  // else a random model hardly says more than the token it has just read
  for (int64_t layer = 0; layer < s.n_layer; ++layer) {
    if (name == "mamba1") {
      Mamba1Settings m;
      m.d_inner = 32;
      m.d_state = 5;
      m.dt_rank = 3;
      push_mamba1(s, layer, m);
    } else if (name == "mamba2") {
      Mamba2Settings m;
      m.d_inner = m.d_ssm = 32;
      m.n_heads = 4;
      m.headdim = 8;
      m.d_state = 12;
      m.n_groups = 2;
      m.dt_limit_max = std::numeric_limits<double>::infinity();
      push_mamba2(s, layer, m);
    } else {
      Mamba3Settings m;
      m.d_inner = 32;
      m.n_heads = 4;
      m.headdim = 8;
      m.d_state = 16;
      m.n_angles = 4;
      m.is_mimo = name == "mamba3_mimo";
      m.mimo_rank = 2;
      push_mamba3(s, layer, m);
      push_gated_mlp(s, layer, 24);
    }
  }
  return s;
}

inline std::unique_ptr<Model> tiny_model(const std::string& name, DType dtype = DType::kF32, uint64_t seed = 1) {
  const ModelSpec spec = tiny_spec(name);
  return std::make_unique<Model>(spec, random_params(spec, seed, dtype, pool()), runtime());
}

inline std::vector<int32_t> random_ids(int64_t n, int64_t vocab, uint64_t seed) {
  return random_integers(n, vocab, Rng(seed));
}

}  // namespace krait::test
