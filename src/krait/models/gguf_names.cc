#include "krait/models/gguf_names.h"

#include <fmt/format.h>

#include "krait/core/error.h"
#include "krait/spec/model_spec.h"

namespace krait {
namespace {

struct NamePair {
  std::string_view ours, theirs;
};
// Below "backbone.layers.N." and "blk.N.". What belongs to Mamba-3 alone has names of our own.
constexpr std::array<NamePair, 27> kLayerNames = {{{"norm.weight", "attn_norm.weight"},
                                                   {"norm.bias", "attn_norm.bias"},
                                                   {"norm2.weight", "ffn_norm.weight"},
                                                   {"norm2.bias", "ffn_norm.bias"},
                                                   {"mlp.fc1.weight", "ffn_up.weight"},
                                                   {"mlp.fc2.weight", "ffn_down.weight"},
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
                                                   {"mixer.init_states", "ssm_initial_state"},
                                                   {"mixer.B_bias", "ssm_b.bias"},
                                                   {"mixer.C_bias", "ssm_c.bias"},
                                                   {"mixer.B_norm.weight", "ssm_b_norm.weight"},
                                                   {"mixer.C_norm.weight", "ssm_c_norm.weight"},
                                                   {"mixer.mimo_x", "ssm_mimo_x"},
                                                   {"mixer.mimo_z", "ssm_mimo_z"},
                                                   {"mixer.mimo_o", "ssm_mimo_o"}}};

}  // namespace

std::string gguf_tensor_name(const std::string& canonical) {
  if (canonical == kEmbeddingName) return "token_embd.weight";
  if (canonical == kHeadName) return "output.weight";
  const std::string norm_f = kFinalNormName;
  if (canonical.starts_with(norm_f + ".")) return "output_norm" + canonical.substr(norm_f.size());
  constexpr std::string_view kLayers = "backbone.layers.";
  const size_t dot = canonical.starts_with(kLayers) ? canonical.find('.', kLayers.size()) : std::string::npos;
  if (dot != std::string::npos) {
    const std::string_view rest = std::string_view(canonical).substr(dot + 1);
    for (const NamePair& n : kLayerNames) {
      if (rest == n.ours)
        return fmt::format("blk.{}.{}", canonical.substr(kLayers.size(), dot - kLayers.size()), n.theirs);
    }
  }
  throw Error(ErrorCode::kInternal, "[gguf] no name for " + canonical);
}

bool gguf_holds_neg_exp(const std::string& canonical) { return canonical.ends_with(".A_log"); }

}  // namespace krait
