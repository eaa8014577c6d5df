// Models of one layer with every combination of the options of their architecture start and run.
#include <cmath>
#include <limits>
#include <utility>

#include "tests/tiny_models.h"

namespace krait::test {
namespace {

// Reads two tokens and steps once, in every type of weights: finite logits that the model's input changes.
void expect_runs(const ModelSpec& spec, const std::string& what) {
  SCOPED_TRACE(what);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Model m(spec, random_params(spec, 1, dtype, pool()), runtime());
    SlotStore states(m.state_specs(), 1);
    const std::vector<int32_t> ids{3, 7, 5};
    const Tensor a = all_logits(m, ids, states, 2), b = all_logits(m, std::vector<int32_t>{3, 7, 6}, states, 2);
    for (int64_t i = 0; i < a.numel(); ++i) ASSERT_TRUE(std::isfinite(a.f32()[i])) << name_of(dtype) << " " << i;
    const int64_t V = m.padded_vocab_size();
    EXPECT_NE(relative_rms(a.f32() + 2 * V, b.f32() + 2 * V, V), 0.0);
  }
}

ModelSpec one_layer(const std::string& architecture) {
  ModelSpec s;
  s.architecture = architecture;
  s.d_model = 8;
  s.n_layer = 1;
  s.vocab_size = 13;
  s.padded_vocab_size = 16;
  s.tie_embeddings = true;
  return s;
}

// The bits of a number, lowest first: one combination of flags.
class Flags {
 public:
  explicit Flags(unsigned bits) : rest_(bits) {}
  bool next() { return std::exchange(rest_, rest_ >> 1) & 1u; }

 private:
  unsigned rest_;
};

TEST(StartUp, TrapB3_Mamba1) {
  for (unsigned n = 0; n < 32; ++n) {
    Flags f(n);
    ModelSpec s = one_layer("mamba");
    Mamba1Settings m;
    m.bias = f.next();
    m.conv_bias = f.next();
    m.dt_b_c_norm_eps = f.next() ? 1e-6 : 0;
    m.d_conv = f.next() ? 2 : 4;
    const bool narrow = f.next();  // an inner width that is no multiple of anything, rank and state of one
    m.d_inner = narrow ? 9 : 16;
    m.d_state = narrow ? 1 : 16;
    m.dt_rank = narrow ? 1 : 2;
    push_mamba1(s, 0, m);
    expect_runs(s, "combination " + std::to_string(n));
  }
}

TEST(StartUp, TrapB3_Mamba2) {
  for (unsigned n = 0; n < 256; ++n) {
    Flags f(n);
    ModelSpec s = one_layer("mamba2");
    Mamba2Settings m;
    m.bias = f.next();
    m.conv_bias = f.next();
    m.D_has_hdim = f.next();
    m.rmsnorm = f.next();
    m.norm_before_gate = f.next();
    m.learned_initial_state = f.next();
    const bool bypass = f.next(), groups = f.next();
    m.n_heads = 4;
    m.headdim = 3;
    m.d_ssm = 12;
    m.d_inner = bypass ? 20 : 12;  // a part that bypasses the state
    m.n_groups = groups ? 4 : 1;
    m.d_state = groups ? 5 : 8;
    m.dt_limit_min = groups ? 1e-3 : 0;
    m.dt_limit_max = groups ? 0.1 : std::numeric_limits<double>::infinity();
    push_mamba2(s, 0, m);
    expect_runs(s, "combination " + std::to_string(n));
  }
}

TEST(StartUp, TrapB3_Mamba3) {
  for (unsigned n = 0; n < 32; ++n) {
    Flags f(n);
    ModelSpec s = one_layer("mamba3");
    Mamba3Settings m;
    m.is_mimo = f.next();
    m.is_outproj_norm = f.next();
    m.softplus_A = f.next();
    m.n_groups = f.next() ? 2 : 1;
    const bool all_turn = f.next();  // rope fraction 1, and no MLP
    m.n_heads = 2;
    m.headdim = 5;
    m.d_inner = 10;
    m.d_state = 8;
    m.n_angles = all_turn ? 4 : 2;
    m.mimo_rank = 3;
    push_mamba3(s, 0, m);
    if (!all_turn) push_gated_mlp(s, 0, 128);
    expect_runs(s, "combination " + std::to_string(n));
  }
}

}  // namespace
}  // namespace krait::test
