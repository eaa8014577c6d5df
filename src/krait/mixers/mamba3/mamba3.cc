// Mamba-3, SISO and MIMO (spec/mamba.md §4).
#include <cmath>

#include "krait/core/error.h"
#include "krait/mixers/mixer.h"
#include "krait/ops/recurrence.h"

namespace krait {
namespace {

struct Dims {
  int64_t E, H, P, N, G, R, F;
  bool mimo, out_norm, softplus_A;
  float eps, A_floor;

  explicit Dims(const MixerConfig& c)
      : E(c.integer("d_inner")),
        H(c.integer("n_heads")),
        P(c.integer("headdim")),
        N(c.integer("d_state")),
        G(c.integer("n_groups")),
        R(c.flag("is_mimo") ? c.integer("mimo_rank") : 1),
        F(c.integer("n_angles")),
        mimo(c.flag("is_mimo")),
        out_norm(c.flag("is_outproj_norm")),
        softplus_A(c.flag("softplus_A")),
        eps(static_cast<float>(c.number("norm_eps"))),
        A_floor(static_cast<float>(c.number("A_floor"))) {
    if (H < 1 || P < 1 || N < 1 || G < 1 || R < 1 || F < 0 || E != H * P || H % G != 0 || 2 * F > N) {
      fail_data("[mamba3] d_inner " + std::to_string(E) + " must be n_heads " + std::to_string(H) + " x headdim " +
                std::to_string(P) + ", n_groups " + std::to_string(G) + " must divide n_heads, mimo_rank " +
                std::to_string(R) + " must be >= 1, and 2 x " + std::to_string(F) + " angles must fit in d_state " +
                std::to_string(N));
    }
  }
  int64_t rows() const { return 2 * E + 2 * N * G * R + 3 * H + F; }
};

std::vector<ParamSpec> params(const MixerConfig& c, int64_t D) {
  const Dims d(c);
  const double r = 1 / static_cast<double>(d.R);
  std::vector<ParamSpec> p = {
      {"in_proj.weight", {d.rows(), D}, ParamRole::kMatmul, Init::uniform(1 / std::sqrt(static_cast<double>(D)))},
      {"dt_bias",
       {d.H},
       ParamRole::kVector,
       Init::dt_bias(c.number("dt_min"), c.number("dt_max"), c.number("dt_init_floor"))},
      {"B_bias", {d.H, d.R, d.N}, ParamRole::kVector, Init::constant(1)},
      {"C_bias", {d.H, d.R, d.N}, ParamRole::kVector, Init::constant(1)},
      {"B_norm.weight", {d.N}, ParamRole::kVector, Init::constant(1)},
      {"C_norm.weight", {d.N}, ParamRole::kVector, Init::constant(1)},
      {"D", {d.H}, ParamRole::kVector, Init::constant(1)},
      {"out_proj.weight", {D, d.E}, ParamRole::kMatmul, Init::uniform(1 / std::sqrt(static_cast<double>(d.E))), true},
  };
  if (d.mimo) {
    p.push_back({"mimo_x", {d.H, d.R, d.P}, ParamRole::kVector, Init::constant(r)});
    p.push_back({"mimo_z", {d.H, d.R, d.P}, ParamRole::kVector, Init::constant(1)});
    p.push_back({"mimo_o", {d.H, d.R, d.P}, ParamRole::kVector, Init::constant(r)});
  }
  if (d.out_norm) p.push_back({"norm.weight", {d.E}, ParamRole::kVector, Init::constant(1)});
  return p;
}

class Mamba3 final : public Mixer {
 public:
  Mamba3(const MixerConfig& c, const ParamSource& p)
      : d_(c), in_proj_(p.matmul("in_proj.weight")), out_proj_(p.matmul("out_proj.weight")) {
    scan_.dt_bias = p.f32("dt_bias");
    scan_.D = p.f32("D");
    scan_.B_bias = p.f32("B_bias");
    scan_.C_bias = p.f32("C_bias");
    scan_.B_norm = p.f32("B_norm.weight");
    scan_.C_norm = p.f32("C_norm.weight");
    if (d_.mimo) {
      scan_.mimo_x = p.f32("mimo_x");
      scan_.mimo_z = p.f32("mimo_z");
      scan_.mimo_o = p.f32("mimo_o");
    }
    if (d_.out_norm) scan_.out_norm = p.f32("norm.weight");
    scan_.eps = d_.eps;
    scan_.A_floor = d_.A_floor;
    scan_.softplus_A = d_.softplus_A;
    scan_.pairing = d_.mimo ? RotaryPairing::kHalves : RotaryPairing::kInterleaved;
    scan_.H = d_.H;
    scan_.P = d_.P;
    scan_.N = d_.N;
    scan_.G = d_.G;
    scan_.R = d_.R;
    scan_.F = d_.F;
  }

  StateSpec state_spec() const override {
    return {{"phase", {d_.H, d_.F}, DType::kI32},
            {"ssm", {d_.H, d_.N, d_.P}, DType::kF32},
            {"k", {d_.R, d_.H, d_.N}, DType::kF32},
            {"x", {d_.E}, DType::kF32}};
  }

  Tensor forward(ForwardContext& ctx, const Tensor& u, StateView& state) const override {
    const Tensor rows = linear(ctx, u, in_proj_);
    Mamba3Scan s = scan_;
    int64_t at = 0;
    const auto next = [&](int64_t width) {
      at += width;
      return rows.narrow(1, at - width, width);
    };
    s.z = next(d_.E);
    s.x = next(d_.E);
    s.B = next(d_.R * d_.G * d_.N);
    s.C = next(d_.R * d_.G * d_.N);
    s.dd_dt = next(d_.H);
    s.dd_A = next(d_.H);
    s.trap = next(d_.H);
    s.angle = next(d_.F);
    return linear(ctx, mamba3_scan(ctx, s, state[0], state[1], state[2], state[3]), out_proj_);
  }

 private:
  Dims d_;
  Weight in_proj_, out_proj_;
  Mamba3Scan scan_;  // parameters and sizes; the row inputs are filled in at each forward
};

std::unique_ptr<Mixer> make(const MixerConfig& c, int64_t, const ParamSource& p) {
  return std::make_unique<Mamba3>(c, p);
}

std::vector<MixerConfig> examples() {
  MixerConfig c;
  c.set("d_inner", 48).set("n_heads", 3).set("headdim", 16).set("d_state", 16).set("n_groups", 1).set("n_angles", 4);
  c.set("is_mimo", 0).set("mimo_rank", 1).set("is_outproj_norm", 0).set("softplus_A", 0).set("A_floor", 1e-4);
  c.set("norm_eps", 1e-5).set("dt_min", 1e-3).set("dt_max", 0.1).set("dt_init_floor", 1e-4);
  MixerConfig norm = c;  // output norm, groups, all dimensions rotated, the older A
  norm.set("n_heads", 4)
      .set("headdim", 12)
      .set("d_state", 10)
      .set("n_groups", 2)
      .set("n_angles", 5)
      .set("is_outproj_norm", 1)
      .set("softplus_A", 1);
  MixerConfig mimo = c;
  mimo.set("is_mimo", 1).set("mimo_rank", 4);
  MixerConfig mimo_norm = norm;
  mimo_norm.set("is_mimo", 1).set("mimo_rank", 2).set("softplus_A", 0);
  return {c, norm, mimo, mimo_norm};
}

}  // namespace

const MixerInfo& mamba3_mixer();
const MixerInfo& mamba3_mixer() {
  static const MixerInfo info{"mamba3", params, make, examples};
  return info;
}

}  // namespace krait
