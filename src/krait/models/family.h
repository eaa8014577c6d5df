// FamilyInfo: how one dialect of checkpoints names its configuration and its tensors.
#pragma once
#include <string>
#include <vector>

#include "krait/io/checkpoint.h"
#include "krait/spec/model_spec.h"

namespace krait {

struct WeightSource {
  std::string name;      // of the tensor in the checkpoint
  bool neg_exp = false;  // the checkpoint holds −exp(p)
};

struct FamilyInfo {
  const char* name;  // "state-spaces", "transformers", "gguf"
  bool (*matches)(const io::Checkpoint&);
  // Reads the configuration, with the tensors' shapes as the judge where the two disagree. Throws kBadData with every
  // problem found; names the family if it is one that is not supported.
  ModelSpec (*parse)(const io::Checkpoint&);
  // Where the parameter of that canonical name stands.
  WeightSource (*source)(const io::Checkpoint&, const ModelSpec&, const std::string& canonical);
};

const FamilyInfo& state_spaces_family();
const FamilyInfo& transformers_family();
const FamilyInfo& gguf_family();

// The dialect of a checkpoint; throws kBadData if it is none that is known.
const FamilyInfo& find_family(const io::Checkpoint&);

// What the dialects of one generation share: defaults filled in, sizes derived. `layer_prefix` is
// "backbone.layers.<i>"; each appends to spec.blocks.
struct Mamba1Settings {
  int64_t d_inner = 0, d_state = 16, d_conv = 4, dt_rank = 0;
  bool bias = false, conv_bias = true;
  double dt_b_c_norm_eps = 0;
  double dt_min = 1e-3, dt_max = 0.1, dt_init_floor = 1e-4, dt_scale = 1.0;
};
void push_mamba1(ModelSpec& spec, int64_t layer, const Mamba1Settings&);

struct Mamba2Settings {
  int64_t d_inner = 0, d_ssm = 0, n_heads = 0, headdim = 64, d_state = 128, n_groups = 1, d_conv = 4;
  bool bias = false, conv_bias = true, D_has_hdim = false, rmsnorm = true, norm_before_gate = false;
  bool learned_initial_state = false;
  double dt_limit_min = 0, dt_limit_max = 0, norm_eps = 1e-5;
  double dt_min = 1e-3, dt_max = 0.1, dt_init_floor = 1e-4;
  double A_init_min = 1, A_init_max = 16;
};
void push_mamba2(ModelSpec& spec, int64_t layer, const Mamba2Settings&);

struct Mamba3Settings {
  int64_t d_inner = 0, n_heads = 0, headdim = 64, d_state = 128, n_groups = 1, mimo_rank = 4, n_angles = 0;
  bool is_mimo = false, is_outproj_norm = false, softplus_A = false;
  double A_floor = 1e-4, norm_eps = 1e-5;
  double dt_min = 1e-3, dt_max = 0.1, dt_init_floor = 1e-4;
};
void push_mamba3(ModelSpec& spec, int64_t layer, const Mamba3Settings&);

// The MLP sub-block of a layer; d_hidden as stored (already rounded up).
void push_gated_mlp(ModelSpec& spec, int64_t layer, int64_t d_hidden);

// Gives every layer of spec.blocks (so far one mixer each) an MLP of that stored width.
void interleave_mlp(ModelSpec& spec, int64_t d_hidden);

// What all forms that are written have in common: layers alike, of the mixer that the architecture says, with or
// without MLPs, under their usual names. Throws kUsage naming the first sub-block that differs.
void check_uniform(const ModelSpec&);

// Throws kBadData unless 1 <= value <= most: sizes in a file may be anything.
inline constexpr int64_t kMostSize = int64_t{1} << 24, kMostLayers = 4096;
void check_positive(const char* name, int64_t value, int64_t most = kMostSize);

// "backbone.layers.<i>"
std::string layer_prefix(int64_t layer);

}  // namespace krait
