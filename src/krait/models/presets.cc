#include "krait/models/presets.h"

#include <array>
#include <cmath>
#include <limits>

#include "krait/core/error.h"
#include "krait/core/half.h"
#include "krait/core/rng.h"
#include "krait/core/thread_pool.h"
#include "krait/models/family.h"

namespace krait {
namespace {

enum class Kind : uint8_t { kMamba1, kFalcon, kMamba2, kCodestral, kSiso, kMimo };

struct Preset {
  const char* name;
  Kind kind;
  int64_t n_layer, d_model;
  int64_t mlp;  // stored width; 0: none
};

constexpr std::array kPresets = {
    Preset{"mamba-130m", Kind::kMamba1, 24, 768, 0},
    Preset{"mamba-370m", Kind::kMamba1, 48, 1024, 0},
    Preset{"mamba-790m", Kind::kMamba1, 48, 1536, 0},
    Preset{"mamba-1.4b", Kind::kMamba1, 48, 2048, 0},
    Preset{"mamba-2.8b", Kind::kMamba1, 64, 2560, 0},
    Preset{"falcon-mamba-7b", Kind::kFalcon, 64, 4096, 0},
    Preset{"mamba2-130m", Kind::kMamba2, 24, 768, 0},
    Preset{"mamba2-370m", Kind::kMamba2, 48, 1024, 0},
    Preset{"mamba2-780m", Kind::kMamba2, 48, 1536, 0},
    Preset{"mamba2-1.3b", Kind::kMamba2, 48, 2048, 0},
    Preset{"mamba2-2.7b", Kind::kMamba2, 64, 2560, 0},
    Preset{"mamba-codestral-7b", Kind::kCodestral, 64, 4096, 0},
    Preset{"mamba3-siso-187m", Kind::kSiso, 12, 768, 1536},
    Preset{"mamba3-mimo-187m", Kind::kMimo, 12, 768, 1280},
    Preset{"mamba3-siso-1.5b", Kind::kSiso, 24, 2048, 4096},
    Preset{"mamba3-mimo-1.5b", Kind::kMimo, 24, 2048, 3840},
};

void set_vocab(ModelSpec& s, int64_t vocab, int64_t multiple) {
  s.vocab_size = vocab;
  s.padded_vocab_size = round_up(vocab, multiple);
}

void build_mamba1(ModelSpec& s, bool falcon) {
  s.architecture = falcon ? "falcon_mamba" : "mamba";
  set_vocab(s, falcon ? 65024 : 50277, 8);
  s.tie_embeddings = !falcon;
  if (falcon) s.eos_ids = {11};
  Mamba1Settings m;
  m.d_inner = 2 * s.d_model;
  m.dt_rank = s.d_model / 16;
  if (falcon) m.dt_b_c_norm_eps = 1e-6;
  for (int64_t i = 0; i < s.n_layer; ++i) push_mamba1(s, i, m);
}

void build_mamba2(ModelSpec& s, bool codestral) {
  s.architecture = "mamba2";
  set_vocab(s, codestral ? 32768 : 50277, 16);
  s.tie_embeddings = !codestral;
  Mamba2Settings m;
  m.d_inner = m.d_ssm = 2 * s.d_model;
  m.n_heads = m.d_inner / m.headdim;
  m.n_groups = codestral ? 8 : 1;
  m.dt_limit_max = std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < s.n_layer; ++i) push_mamba2(s, i, m);
}

void build_mamba3(ModelSpec& s, bool mimo, int64_t mlp) {
  s.architecture = "mamba3";
  set_vocab(s, 128256, 16);
  Mamba3Settings m;
  m.d_inner = 2 * s.d_model;
  m.n_heads = m.d_inner / m.headdim;
  m.n_angles = m.d_state / 4;  // rope_fraction 0.5
  m.is_mimo = mimo;
  for (int64_t i = 0; i < s.n_layer; ++i) {
    push_mamba3(s, i, m);
    push_gated_mlp(s, i, mlp);
  }
}

double inverse_softplus(double y) { return y + std::log(-std::expm1(-y)); }

double draw(Rng& rng, const Init& init, int64_t index, int64_t inner) {
  switch (init.kind) {
    case Init::Kind::kConstant:
      return init.a;
    case Init::Kind::kUniform:
      return rng.uniform(-init.a, init.a);
    case Init::Kind::kNormal:
      return init.a * rng.normal();
    case Init::Kind::kLogIndex:
      return std::log(static_cast<double>(index % inner + 1));
    case Init::Kind::kLogUniform:
      return std::log(rng.uniform(init.a, init.b));
    case Init::Kind::kDtBias: {
      const double dt = std::exp(rng.uniform(std::log(init.a), std::log(init.b)));
      return inverse_softplus(std::max(dt, init.floor));
    }
  }
  return 0;
}

void store(Tensor& t, int64_t i, double v) {
  const auto f = static_cast<float>(v);
  if (t.dtype() == DType::kF32) {
    t.f32()[i] = f;
  } else {
    t.data<uint16_t>()[i] = t.dtype() == DType::kBF16 ? f32_to_bf16(f) : f32_to_f16(f);
  }
}

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Preset& p : kPresets) names.emplace_back(p.name);
  return names;
}

ModelSpec preset(const std::string& name) {
  for (const Preset& p : kPresets) {
    if (name != p.name) continue;
    ModelSpec s;
    s.d_model = p.d_model;
    s.n_layer = p.n_layer;
    switch (p.kind) {
      case Kind::kMamba1:
      case Kind::kFalcon:
        build_mamba1(s, p.kind == Kind::kFalcon);
        break;
      case Kind::kMamba2:
      case Kind::kCodestral:
        build_mamba2(s, p.kind == Kind::kCodestral);
        break;
      case Kind::kSiso:
      case Kind::kMimo:
        build_mamba3(s, p.kind == Kind::kMimo, p.mlp);
        break;
    }
    return s;
  }
  std::string known;
  for (const Preset& p : kPresets) known += std::string(known.empty() ? "" : ", ") + p.name;
  fail_usage("[new] there is no published shape '" + name + "'; known: " + known);
}

ParamStore random_params(const ModelSpec& spec, uint64_t seed, DType dtype, ThreadPool& pool) {
  ParamStore out;
  uint64_t stream = 0;
  for (const ParamSpec& p : model_params(spec)) {
    Tensor t = Tensor::empty(p.shape, p.role == ParamRole::kVector ? DType::kF32 : dtype);
    const double scale = p.residual_output ? 1 / std::sqrt(static_cast<double>(spec.n_layer)) : 1;
    const int64_t n = t.numel(), inner = p.shape[-1];
    constexpr int64_t kPiece = 1 << 16;
    pool.parallel_for((n + kPiece - 1) / kPiece, [&](int64_t piece) {
      const int64_t begin = piece * kPiece;
      Rng rng(seed, stream, static_cast<uint64_t>(begin));  // one draw an element: the counter is its index
      for (int64_t i = begin; i < std::min(n, begin + kPiece); ++i) store(t, i, scale * draw(rng, p.init, i, inner));
    });
    out.set(p.name, {t, false});
    ++stream;
  }
  return out;
}

}  // namespace krait
