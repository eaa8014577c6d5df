// Models for the tests of this folder: wide enough that every type has rows that fit.
#pragma once
#include <limits>

#include "krait/core/rng.h"
#include "krait/models/family.h"
#include "krait/models/presets.h"

namespace krait::quant::test {

inline ModelSpec wide_spec(const std::string& architecture, int64_t d_model = 256, int64_t dt_rank = 48) {
  ModelSpec s;
  s.architecture = architecture;
  s.d_model = d_model;
  s.n_layer = 2;
  s.vocab_size = 30;
  s.padded_vocab_size = 32;
  for (int64_t layer = 0; layer < s.n_layer; ++layer) {
    if (architecture == "mamba") {
      Mamba1Settings m;
      m.d_inner = 2 * d_model;
      m.dt_rank = dt_rank;
      push_mamba1(s, layer, m);
    } else if (architecture == "mamba2") {
      Mamba2Settings m;
      m.d_inner = m.d_ssm = 2 * d_model;
      m.n_heads = 8;
      m.headdim = m.d_inner / 8;
      m.d_state = 16;
      m.dt_limit_max = std::numeric_limits<double>::infinity();
      push_mamba2(s, layer, m);
    } else {
      Mamba3Settings m;
      m.d_inner = 2 * d_model;
      m.n_heads = 8;
      m.headdim = m.d_inner / 8;
      m.d_state = 16;
      m.n_angles = 4;
      push_mamba3(s, layer, m);
      push_gated_mlp(s, layer, 384);
    }
  }
  return s;
}

inline ParamStore random_store(const ModelSpec& s, DType dtype = DType::kBF16) {
  ThreadPool pool(1);
  return random_params(s, 1, dtype, pool);
}

}  // namespace krait::quant::test
