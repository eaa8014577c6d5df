// Mamba-2 (spec/mamba.md §3), with its options: d_ssm < d_inner (a gated MLP inside the mixer), D per channel, either
// gate order or none, limits on dt, learned initial states.
#include <algorithm>
#include <cmath>
#include <limits>

#include "krait/core/error.h"
#include "krait/mixers/mixer.h"
#include "krait/mixers/transpose.h"
#include "krait/ops/recurrence.h"

namespace krait {
namespace {

struct Dims {
  int64_t E, S, H, P, N, G, W;  // S = d_ssm = H·P channels pass through the scan
  bool bias, conv_bias, D_per_channel, gated_norm, norm_before_gate, learned_initial_state;
  float dt_min, dt_max, eps;

  explicit Dims(const MixerConfig& c)
      : E(c.integer("d_inner")),
        S(c.integer("d_ssm")),
        H(c.integer("n_heads")),
        P(c.integer("headdim")),
        N(c.integer("d_state")),
        G(c.integer("n_groups")),
        W(c.integer("d_conv")),
        bias(c.flag("bias")),
        conv_bias(c.flag("conv_bias")),
        D_per_channel(c.flag("D_has_hdim")),
        gated_norm(c.flag("rmsnorm")),
        norm_before_gate(c.flag("norm_before_gate")),
        learned_initial_state(c.flag("learned_initial_state")),
        dt_min(static_cast<float>(c.number("dt_limit_min"))),
        dt_max(static_cast<float>(c.number("dt_limit_max"))),
        eps(static_cast<float>(c.number("norm_eps"))) {
    if (H < 1 || P < 1 || G < 1 || N < 1 || W < 1 || S != H * P || S > E || H % G != 0) {
      fail_data("[mamba2] d_ssm " + std::to_string(S) + " must be n_heads " + std::to_string(H) + " x headdim " +
                std::to_string(P) + ", at most d_inner " + std::to_string(E) + ", and n_groups " + std::to_string(G) +
                " must divide n_heads");
    }
  }
  int64_t mlp() const { return E - S; }
  int64_t conv() const { return S + 2 * G * N; }
  int64_t rows() const { return 2 * mlp() + S + conv() + H; }
};

std::vector<ParamSpec> params(const MixerConfig& c, int64_t D) {
  const Dims d(c);
  const double conv = 1 / std::sqrt(static_cast<double>(d.W));
  std::vector<ParamSpec> p = {
      {"in_proj.weight", {d.rows(), D}, ParamRole::kMatmul, Init::uniform(1 / std::sqrt(static_cast<double>(D)))},
      {"conv1d.weight", {d.conv(), 1, d.W}, ParamRole::kVector, Init::uniform(conv)},
      {"dt_bias",
       {d.H},
       ParamRole::kVector,
       Init::dt_bias(c.number("dt_min"), c.number("dt_max"), c.number("dt_init_floor"))},
      {"A_log", {d.H}, ParamRole::kVector, Init::log_uniform(c.number("A_init_min"), c.number("A_init_max"))},
      {"D", {d.D_per_channel ? d.S : d.H}, ParamRole::kVector, Init::constant(1)},
      {"out_proj.weight", {D, d.E}, ParamRole::kMatmul, Init::uniform(1 / std::sqrt(static_cast<double>(d.E))), true},
  };
  if (d.conv_bias) p.push_back({"conv1d.bias", {d.conv()}, ParamRole::kVector, Init::uniform(conv)});
  if (d.gated_norm) p.push_back({"norm.weight", {d.S}, ParamRole::kVector, Init::constant(1)});
  if (d.learned_initial_state) p.push_back({"init_states", {d.H, d.P, d.N}, ParamRole::kVector, Init::constant(0)});
  if (d.bias) {
    p.push_back({"in_proj.bias", {d.rows()}, ParamRole::kVector, Init::constant(0)});
    p.push_back({"out_proj.bias", {D}, ParamRole::kVector, Init::constant(0)});
  }
  return p;
}

class Mamba2 final : public Mixer {
 public:
  Mamba2(const MixerConfig& c, const ParamSource& p)
      : d_(c),
        in_proj_(p.matmul("in_proj.weight")),
        out_proj_(p.matmul("out_proj.weight")),
        conv_w_(p.taps("conv1d.weight")),
        A_(p.neg_exp("A_log")),
        D_(p.f32("D")),
        dt_bias_(p.f32("dt_bias")) {
    if (d_.conv_bias) conv_b_ = p.f32("conv1d.bias");
    if (d_.gated_norm) norm_w_ = p.f32("norm.weight");
    if (d_.learned_initial_state) initial_ = transposed(p.f32("init_states"), p.tape());  // [H, P, N] -> [H, N, P]
    if (d_.bias) {
      in_bias_ = p.f32("in_proj.bias");
      out_bias_ = p.f32("out_proj.bias");
    }
  }

  StateSpec state_spec() const override {
    return {{"conv", {d_.W - 1, d_.conv()}, DType::kF32}, {"ssm", {d_.H, d_.N, d_.P}, DType::kF32}};
  }

  void reset_state(StateView& state, int64_t slot) const override {
    Mixer::reset_state(state, slot);
    if (!initial_.defined()) return;
    Tensor s = slot_of(state[1], slot);
    std::copy_n(initial_.f32(), initial_.numel(), s.f32());
  }

  void reset_state_backward(Gradients& g, const StateView& state, int64_t slot) const override {
    Tensor d = g.if_watched(initial_);
    if (!d.defined()) return;
    const Tensor ds = slot_of(g.of(state[1]), slot);
    for (int64_t i = 0; i < d.numel(); ++i) d.f32()[i] += ds.f32()[i];
  }

  Tensor forward(ForwardContext& ctx, const Tensor& u, StateView& state) const override {
    const int64_t m = d_.mlp(), GN = d_.G * d_.N;
    const Tensor rows = linear(ctx, u, in_proj_, in_bias_);  // [z0, x0 (m each), z (S), x (S), B, C (G·N each), dt (H)]
    const Tensor z = rows.narrow(1, 2 * m, d_.S);
    const Tensor xBC = causal_conv(ctx, rows.narrow(1, 2 * m + d_.S, d_.conv()), conv_w_, conv_b_, true, state[0]);
    SsdScan s;
    s.x = xBC.narrow(1, 0, d_.S);
    s.B = xBC.narrow(1, d_.S, GN);
    s.C = xBC.narrow(1, d_.S + GN, GN);
    s.dt = rows.narrow(1, d_.rows() - d_.H, d_.H);
    s.A = A_;
    s.D = D_;
    s.dt_bias = dt_bias_;
    s.dt_min = d_.dt_min;
    s.dt_max = d_.dt_max;
    s.H = d_.H;
    s.P = d_.P;
    s.N = d_.N;
    s.G = d_.G;
    Tensor y = ssd_scan(ctx, s, state[1]);
    if (d_.gated_norm) {
      gated_norm_(ctx, y, z, norm_w_, d_.G, d_.eps, d_.norm_before_gate);
    } else {
      silu_gate(ctx, y, z, y);
    }
    if (m > 0) y = beside_mlp(ctx, rows, y);
    return linear(ctx, y, out_proj_, out_bias_);
  }

 private:
  // [silu(z0)·x0 ; y]: the channels that bypass the scan come first.
  Tensor beside_mlp(ForwardContext& ctx, const Tensor& rows, const Tensor& y) const {
    const int64_t m = d_.mlp();
    Tensor all = Tensor::empty({rows.dim(0), d_.E});
    Tensor first = all.narrow(1, 0, m), rest = all.narrow(1, m, d_.S);
    silu_gate(ctx, rows.narrow(1, m, m), rows.narrow(1, 0, m), first);
    copy_(ctx, rest, y);
    return all;
  }

  Dims d_;
  Weight in_proj_, out_proj_;
  ConvTaps conv_w_;  // [W, conv]
  Tensor conv_b_;    // [conv]
  Tensor A_, D_, dt_bias_, norm_w_, in_bias_, out_bias_;
  Tensor initial_;  // [H, N, P] or undefined
};

std::unique_ptr<Mixer> make(const MixerConfig& c, int64_t, const ParamSource& p) {
  return std::make_unique<Mamba2>(c, p);
}

std::vector<MixerConfig> examples() {
  MixerConfig c;
  c.set("d_inner", 48).set("d_ssm", 48).set("n_heads", 3).set("headdim", 16).set("d_state", 16).set("n_groups", 1);
  c.set("d_conv", 4)
      .set("bias", 0)
      .set("conv_bias", 1)
      .set("D_has_hdim", 0)
      .set("rmsnorm", 1)
      .set("norm_before_gate", 0);
  c.set("learned_initial_state", 0).set("dt_limit_min", 0).set("dt_limit_max", std::numeric_limits<double>::infinity());
  c.set("norm_eps", 1e-5).set("dt_min", 1e-3).set("dt_max", 0.1).set("dt_init_floor", 1e-4);
  c.set("A_init_min", 1).set("A_init_max", 16);
  MixerConfig odd = c;  // groups, limits, biases, norm first
  odd.set("d_inner", 40).set("d_ssm", 40).set("n_heads", 8).set("headdim", 5).set("d_state", 7).set("n_groups", 4);
  odd.set("d_conv", 3)
      .set("bias", 1)
      .set("conv_bias", 0)
      .set("norm_before_gate", 1)
      .set("dt_limit_min", 0.01)
      .set("dt_limit_max", 0.08);
  MixerConfig partial = c;  // a gated MLP inside, D per channel, learned initial states, no norm
  partial.set("d_inner", 60).set("D_has_hdim", 1).set("rmsnorm", 0).set("learned_initial_state", 1);
  return {c, odd, partial};
}

}  // namespace

const MixerInfo& mamba2_mixer();
const MixerInfo& mamba2_mixer() {
  static const MixerInfo info{"mamba2", params, make, examples};
  return info;
}

}  // namespace krait
