// Gated MLP: fc2(value · silu(gate)), rows of fc1 = [value ; gate], no biases (spec/mamba.md §1.2).
#include <cmath>

#include "krait/mixers/mixer.h"

namespace krait {
namespace {

std::vector<ParamSpec> params(const MixerConfig& c, int64_t D) {
  const int64_t M = c.integer("d_hidden");
  return {
      {"fc1.weight", {2 * M, D}, ParamRole::kMatmul, Init::uniform(1 / std::sqrt(static_cast<double>(D)))},
      {"fc2.weight", {D, M}, ParamRole::kMatmul, Init::uniform(1 / std::sqrt(static_cast<double>(M))), true},
  };
}

class GatedMlp final : public Mixer {
 public:
  GatedMlp(const MixerConfig& c, const ParamSource& p)
      : M_(c.integer("d_hidden")), fc1_(p.matmul("fc1.weight")), fc2_(p.matmul("fc2.weight")) {}

  StateSpec state_spec() const override { return {}; }

  Tensor forward(ForwardContext& ctx, const Tensor& x, StateView&) const override {
    const Tensor rows = linear(ctx, x, fc1_);  // [T, 2M]: value, gate
    Tensor value = rows.narrow(1, 0, M_);
    silu_gate(ctx, value, rows.narrow(1, M_, M_), value);
    return linear(ctx, value, fc2_);
  }

 private:
  int64_t M_;
  Weight fc1_, fc2_;
};

std::unique_ptr<Mixer> make(const MixerConfig& c, int64_t, const ParamSource& p) {
  return std::make_unique<GatedMlp>(c, p);
}

std::vector<MixerConfig> examples() { return {MixerConfig().set("d_hidden", 20)}; }

}  // namespace

const MixerInfo& gated_mlp_mixer();
const MixerInfo& gated_mlp_mixer() {
  static const MixerInfo info{"gated_mlp", params, make, examples};
  return info;
}

}  // namespace krait
