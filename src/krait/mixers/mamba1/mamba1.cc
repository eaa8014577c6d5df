// Mamba-1, and FalconMamba, which adds weightless norms on dt, B and C (spec/mamba.md §2).
#include <cmath>

#include "krait/mixers/mixer.h"
#include "krait/mixers/transpose.h"
#include "krait/ops/recurrence.h"

namespace krait {
namespace {

struct Dims {
  int64_t E, N, W, dt_rank;
  bool bias, conv_bias;
  double dt_b_c_norm_eps;  // 0: no norms on dt, B, C

  explicit Dims(const MixerConfig& c)
      : E(c.integer("d_inner")),
        N(c.integer("d_state")),
        W(c.integer("d_conv")),
        dt_rank(c.integer("dt_rank")),
        bias(c.flag("bias")),
        conv_bias(c.flag("conv_bias")),
        dt_b_c_norm_eps(c.number("dt_b_c_norm_eps")) {}
};

std::vector<ParamSpec> params(const MixerConfig& c, int64_t D) {
  const Dims d(c);
  const double fan_in_D = 1 / std::sqrt(static_cast<double>(D));
  const double fan_in_E = 1 / std::sqrt(static_cast<double>(d.E));
  const double dt_std = c.number("dt_scale") / std::sqrt(static_cast<double>(d.dt_rank));
  const double conv = 1 / std::sqrt(static_cast<double>(d.W));
  std::vector<ParamSpec> p = {
      {"in_proj.weight", {2 * d.E, D}, ParamRole::kMatmul, Init::uniform(fan_in_D)},
      {"conv1d.weight", {d.E, 1, d.W}, ParamRole::kVector, Init::uniform(conv)},
      {"x_proj.weight", {d.dt_rank + 2 * d.N, d.E}, ParamRole::kMatmul, Init::uniform(fan_in_E)},
      {"dt_proj.weight", {d.E, d.dt_rank}, ParamRole::kMatmul, Init::uniform(dt_std)},
      {"dt_proj.bias",
       {d.E},
       ParamRole::kVector,
       Init::dt_bias(c.number("dt_min"), c.number("dt_max"), c.number("dt_init_floor"))},
      {"A_log", {d.E, d.N}, ParamRole::kVector, Init::log_index()},
      {"D", {d.E}, ParamRole::kVector, Init::constant(1)},
      {"out_proj.weight", {D, d.E}, ParamRole::kMatmul, Init::uniform(fan_in_E), true},
  };
  if (d.conv_bias) p.push_back({"conv1d.bias", {d.E}, ParamRole::kVector, Init::uniform(conv)});
  if (d.bias) {
    p.push_back({"in_proj.bias", {2 * d.E}, ParamRole::kVector, Init::constant(0)});
    p.push_back({"out_proj.bias", {D}, ParamRole::kVector, Init::constant(0)});
  }
  return p;
}

class Mamba1 final : public Mixer {
 public:
  Mamba1(const MixerConfig& c, const ParamSource& p)
      : d_(c),
        in_proj_(p.matmul("in_proj.weight")),
        x_proj_(p.matmul("x_proj.weight")),
        dt_proj_(p.matmul("dt_proj.weight")),
        out_proj_(p.matmul("out_proj.weight")),
        conv_w_(p.taps("conv1d.weight")),
        A_(transposed(p.neg_exp("A_log"), p.tape())),
        D_(p.f32("D")),
        dt_bias_(p.f32("dt_proj.bias")) {
    if (d_.conv_bias) conv_b_ = p.f32("conv1d.bias");
    if (d_.bias) {
      in_bias_ = p.f32("in_proj.bias");
      out_bias_ = p.f32("out_proj.bias");
    }
  }

  StateSpec state_spec() const override {
    return {{"conv", {d_.W - 1, d_.E}, DType::kF32}, {"ssm", {d_.N, d_.E}, DType::kF32}};
  }

  Tensor forward(ForwardContext& ctx, const Tensor& u, StateView& state) const override {
    const Tensor xz = linear(ctx, u, in_proj_, in_bias_);  // [T, 2E]: x, z
    const Tensor x = causal_conv(ctx, xz.narrow(1, 0, d_.E), conv_w_, conv_b_, true, state[0]);
    const Tensor dbc = linear(ctx, x, x_proj_);  // [T, dt_rank + 2N]
    Tensor dt = dbc.narrow(1, 0, d_.dt_rank);
    Mamba1Scan s;
    s.B = dbc.narrow(1, d_.dt_rank, d_.N);
    s.C = dbc.narrow(1, d_.dt_rank + d_.N, d_.N);
    if (d_.dt_b_c_norm_eps > 0) {
      for (Tensor* t : {&dt, &s.B, &s.C}) rms_norm_(ctx, *t, static_cast<float>(d_.dt_b_c_norm_eps));
    }
    s.x = x;
    s.dt = linear(ctx, dt, dt_proj_);
    s.z = xz.narrow(1, d_.E, d_.E);
    s.A = A_;
    s.D = D_;
    s.dt_bias = dt_bias_;
    return linear(ctx, mamba1_scan(ctx, s, state[1]), out_proj_, out_bias_);
  }

 private:
  Dims d_;
  Weight in_proj_, x_proj_, dt_proj_, out_proj_;
  ConvTaps conv_w_;  // [W, E]
  Tensor conv_b_;    // [E]
  Tensor A_;         // [N, E]
  Tensor D_, dt_bias_, in_bias_, out_bias_;
};

std::unique_ptr<Mixer> make(const MixerConfig& c, int64_t, const ParamSource& p) {
  return std::make_unique<Mamba1>(c, p);
}

std::vector<MixerConfig> examples() {
  MixerConfig c;
  c.set("d_inner", 40).set("d_state", 16).set("d_conv", 4).set("dt_rank", 3).set("bias", 0).set("conv_bias", 1);
  c.set("dt_b_c_norm_eps", 0).set("dt_min", 1e-3).set("dt_max", 0.1).set("dt_init_floor", 1e-4).set("dt_scale", 1);
  MixerConfig odd = c;  // sizes that fill no vector, biases, FalconMamba's norms
  odd.set("d_inner", 37)
      .set("d_state", 5)
      .set("d_conv", 3)
      .set("bias", 1)
      .set("conv_bias", 0)
      .set("dt_b_c_norm_eps", 1e-6);
  MixerConfig wide = c;
  wide.set("d_state", 33).set("d_conv", 2);
  return {c, odd, wide};
}

}  // namespace

const MixerInfo& mamba1_mixer();
const MixerInfo& mamba1_mixer() {
  static const MixerInfo info{"mamba1", params, make, examples};
  return info;
}

}  // namespace krait
