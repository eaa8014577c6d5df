// GGUF files: general.architecture mamba (Mamba-1 and FalconMamba), mamba2 (spec/gguf.md §2, §3).
#include <fmt/format.h>

#include <array>
#include <limits>
#include <string_view>

#include "krait/core/error.h"
#include "krait/io/gguf.h"
#include "krait/models/family.h"

namespace krait {
namespace {

bool matches(const io::Checkpoint& c) { return c.gguf() != nullptr; }

struct NamePair {
  std::string_view ours, theirs;
};
// Below "backbone.layers.N." and "blk.N.".
constexpr std::array<NamePair, 15> kLayerNames = {{{"norm.weight", "attn_norm.weight"},
                                                   {"mixer.in_proj.weight", "ssm_in.weight"},
                                                   {"mixer.in_proj.bias", "ssm_in.bias"},
                                                   {"mixer.conv1d.weight", "ssm_conv1d.weight"},
                                                   {"mixer.conv1d.bias", "ssm_conv1d.bias"},
                                                   {"mixer.x_proj.weight", "ssm_x.weight"},
                                                   {"mixer.dt_proj.weight", "ssm_dt.weight"},
                                                   {"mixer.dt_proj.bias", "ssm_dt.bias"},
                                                   {"mixer.dt_bias", "ssm_dt.bias"},
                                                   {"mixer.A_log", "ssm_a"},
                                                   {"mixer.D", "ssm_d"},
                                                   {"mixer.norm.weight", "ssm_norm.weight"},
                                                   {"mixer.out_proj.weight", "ssm_out.weight"},
                                                   {"mixer.out_proj.bias", "ssm_out.bias"},
                                                   {"norm.bias", "attn_norm.bias"}}};

ModelSpec parse(const io::Checkpoint& c) {
  const io::Gguf& g = *c.gguf();
  const std::string arch = g.str("general.architecture");
  if (arch != "mamba" && arch != "mamba2") {
    fail_data("[config] GGUF architecture '" + arch + "' is not supported yet; supported: mamba, mamba2");
  }
  const auto key = [&](const char* name) { return arch + "." + name; };
  ModelSpec spec;
  spec.architecture = arch;
  spec.d_model = g.integer(key("embedding_length"));
  spec.n_layer = g.integer(key("block_count"));
  check_positive("embedding_length", spec.d_model);
  check_positive("block_count", spec.n_layer, kMostLayers);
  if (!c.has("token_embd.weight") || c.shape("token_embd.weight").rank() != 2) {
    fail_data("[load] token_embd.weight is missing or not a matrix");
  }
  spec.padded_vocab_size = c.shape("token_embd.weight")[0];
  spec.vocab_size = g.integer_or(key("vocab_size"), spec.padded_vocab_size);
  check_positive("vocab_size", spec.vocab_size, spec.padded_vocab_size);
  spec.norm_eps = g.number_or(key("attention.layer_norm_rms_epsilon"), 1e-5);
  spec.tie_embeddings = !c.has("output.weight");
  if (g.has("tokenizer.ggml.eos_token_id")) {
    spec.eos_ids.push_back(static_cast<int32_t>(g.integer("tokenizer.ggml.eos_token_id")));
  }
  const int64_t E = g.integer(key("ssm.inner_size"));
  const int64_t W = g.integer_or(key("ssm.conv_kernel"), 4);
  check_positive("ssm.inner_size", E);
  const bool conv_bias = c.has("blk.0.ssm_conv1d.bias"), bias = c.has("blk.0.ssm_in.bias");
  if (arch == "mamba") {
    Mamba1Settings m;
    m.d_inner = E;
    m.d_conv = W;
    m.d_state = g.integer_or(key("ssm.state_size"), 16);
    m.dt_rank = g.integer_or(key("ssm.time_step_rank"), round_up(spec.d_model, 16) / 16);
    m.conv_bias = conv_bias;
    m.bias = bias;
    if (g.boolean_or(key("ssm.dt_b_c_rms"), false)) {  // the original's epsilon, not the layers' (trap C4)
      spec.architecture = "falcon_mamba";
      m.dt_b_c_norm_eps = g.number_or("krait.ssm.dt_b_c_rms_epsilon", 1e-6);
    }
    for (int64_t i = 0; i < spec.n_layer; ++i) push_mamba1(spec, i, m);
  } else {
    Mamba2Settings m;
    m.d_inner = m.d_ssm = E;
    m.d_conv = W;
    m.d_state = g.integer_or(key("ssm.state_size"), 128);
    m.n_heads = g.integer(key("ssm.time_step_rank"));  // the number of heads, not a rank
    m.n_groups = g.integer_or(key("ssm.group_count"), 1);
    check_positive("ssm.time_step_rank", m.n_heads);
    m.headdim = E / m.n_heads;
    m.conv_bias = conv_bias;
    m.bias = bias;
    m.norm_eps = spec.norm_eps;
    m.dt_limit_min = g.number_or("krait.ssm.dt_limit_min", 0);
    m.dt_limit_max = g.number_or("krait.ssm.dt_limit_max", std::numeric_limits<double>::infinity());
    for (int64_t i = 0; i < spec.n_layer; ++i) push_mamba2(spec, i, m);
  }
  return spec;
}

WeightSource source(const io::Checkpoint&, const ModelSpec&, const std::string& canonical) {
  if (canonical == kEmbeddingName) return {"token_embd.weight", false};
  if (canonical == kHeadName) return {"output.weight", false};
  const std::string norm_f = kFinalNormName;
  if (canonical.starts_with(norm_f + ".")) return {"output_norm" + canonical.substr(norm_f.size()), false};
  constexpr std::string_view kLayers = "backbone.layers.";
  const size_t dot = canonical.find('.', kLayers.size());
  const std::string_view rest = std::string_view(canonical).substr(dot + 1);
  for (const NamePair& n : kLayerNames) {
    if (rest != n.ours) continue;
    const std::string layer = canonical.substr(kLayers.size(), dot - kLayers.size());
    return {fmt::format("blk.{}.{}", layer, n.theirs), n.theirs == "ssm_a"};
  }
  throw Error(ErrorCode::kInternal, "[gguf] no name for " + canonical);
}

}  // namespace

const FamilyInfo& gguf_family() {
  static const FamilyInfo info{"gguf", matches, parse, source};
  return info;
}

}  // namespace krait
