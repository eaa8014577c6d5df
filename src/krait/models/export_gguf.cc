#include "krait/models/export_gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "krait/core/error.h"
#include "krait/models/family.h"
#include "krait/models/gguf_names.h"

namespace krait {
namespace {

constexpr int64_t kQuantizationVersion = 2;  // of the layout of blocks in kernels/blocks.h

// Whether the model is Mamba-1 or Mamba-2 with options that llama.cpp's graphs lack, so that it must not be mistaken
// for one of those.
bool beyond_llama(const ModelSpec& s) {
  if (!s.rms_norm) return true;
  if (s.architecture != "mamba2") return false;
  const MixerConfig& c = s.blocks.front().config;
  return c.number("d_ssm") != c.number("d_inner") || c.flag("D_has_hdim") || c.flag("norm_before_gate") ||
         !c.flag("rmsnorm") || c.flag("learned_initial_state") || c.number("norm_eps") != s.norm_eps ||
         c.number("dt_limit_min") != 0 || std::isfinite(c.number("dt_limit_max"));
}

std::string architecture_of(const ModelSpec& s) {
  const std::string base = s.architecture == "falcon_mamba" ? "mamba" : s.architecture;
  return base != "mamba3" && beyond_llama(s) ? std::string(kOwnArchitecture) + base : base;
}

class Values {
 public:
  explicit Values(const ModelSpec& s) : spec_(s), c_(s.blocks.front().config), prefix_(architecture_of(s) + ".") {}

  GgufValues build() {
    own("general.architecture", architecture_of(spec_));
    own("general.type", std::string("model"));
    shell();
    if (spec_.architecture == "mamba2") {
      mamba2();
    } else if (spec_.architecture == "mamba3") {
      mamba3();
    } else {
      mamba1();
    }
    return std::move(out_);
  }

 private:
  void own(const char* key, io::Gguf::Value v) { out_.emplace_back(key, std::move(v)); }
  void set(const char* key, io::Gguf::Value v) { out_.emplace_back(prefix_ + key, std::move(v)); }
  // Written only if it says something.
  void unless(const char* key, double v, double usual) {
    if (v != usual) own(key, v);
  }
  void if_set(const char* key, bool v) {
    if (v) own(key, true);
  }

  void shell() {
    set("context_length", int64_t{1} << 20);  // there is no limit; llama.cpp wants one
    set("embedding_length", spec_.d_model);
    set("block_count", spec_.n_layer);
    const bool mlp = spec_.blocks.size() > 1 && spec_.blocks[1].mixer == "gated_mlp";
    set("feed_forward_length", mlp ? spec_.blocks[1].config.integer("d_hidden") : int64_t{0});
    set("attention.head_count", int64_t{0});
    set("vocab_size", spec_.padded_vocab_size);
    set(spec_.rms_norm ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", spec_.norm_eps);
    if (spec_.vocab_size != spec_.padded_vocab_size) own(gguf_key::kVocabSize, spec_.vocab_size);
    if (spec_.eos_ids.size() > 1) {
      own(gguf_key::kEosIds, std::vector<int64_t>(spec_.eos_ids.begin(), spec_.eos_ids.end()));
    }
    unless(gguf_key::kDtMin, c_.number("dt_min"), Mamba1Settings{}.dt_min);
    unless(gguf_key::kDtMax, c_.number("dt_max"), Mamba1Settings{}.dt_max);
    unless(gguf_key::kDtFloor, c_.number("dt_init_floor"), Mamba1Settings{}.dt_init_floor);
  }

  void mamba1() {
    set("ssm.conv_kernel", c_.integer("d_conv"));
    set("ssm.inner_size", c_.integer("d_inner"));
    set("ssm.state_size", c_.integer("d_state"));
    set("ssm.time_step_rank", c_.integer("dt_rank"));
    unless(gguf_key::kDtScale, c_.number("dt_scale"), Mamba1Settings{}.dt_scale);
    if (spec_.architecture != "falcon_mamba") return;
    set("ssm.dt_b_c_rms", true);
    own(gguf_key::kDtBcEps, c_.number("dt_b_c_norm_eps"));
  }

  void mamba2() {
    set("ssm.conv_kernel", c_.integer("d_conv"));
    set("ssm.inner_size", c_.integer("d_ssm"));
    set("ssm.state_size", c_.integer("d_state"));
    set("ssm.time_step_rank", c_.integer("n_heads"));
    set("ssm.group_count", c_.integer("n_groups"));
    if (c_.number("d_ssm") != c_.number("d_inner")) own(gguf_key::kInnerWidth, c_.integer("d_inner"));
    if (!c_.flag("rmsnorm")) own(gguf_key::kGatedNorm, false);
    if_set(gguf_key::kNormBeforeGate, c_.flag("norm_before_gate"));
    if_set(gguf_key::kPerChannelD, c_.flag("D_has_hdim"));
    if_set(gguf_key::kInitialState, c_.flag("learned_initial_state"));
    unless(gguf_key::kNormEps, c_.number("norm_eps"), spec_.norm_eps);
    unless(gguf_key::kDtLimitMin, c_.number("dt_limit_min"), 0);
    unless(gguf_key::kAInitMin, c_.number("A_init_min"), Mamba2Settings{}.A_init_min);
    unless(gguf_key::kAInitMax, c_.number("A_init_max"), Mamba2Settings{}.A_init_max);
    if (std::isfinite(c_.number("dt_limit_max"))) own(gguf_key::kDtLimitMax, c_.number("dt_limit_max"));
  }

  void mamba3() {
    set("ssm.inner_size", c_.integer("d_inner"));
    set("ssm.state_size", c_.integer("d_state"));
    set("ssm.time_step_rank", c_.integer("n_heads"));
    set("ssm.group_count", c_.integer("n_groups"));
    own(gguf_key::kAngles, c_.integer("n_angles"));
    if (c_.flag("is_mimo")) own(gguf_key::kMimoRank, c_.integer("mimo_rank"));
    own(gguf_key::kAFloor, c_.number("A_floor"));
    if_set(gguf_key::kOutputNorm, c_.flag("is_outproj_norm"));
    if_set(gguf_key::kSoftplusA, c_.flag("softplus_A"));
    unless(gguf_key::kNormEps, c_.number("norm_eps"), spec_.norm_eps);
  }

  const ModelSpec& spec_;
  const MixerConfig& c_;
  std::string prefix_;
  GgufValues out_;
};

// The parameter as the file holds it: value transforms of spec/gguf.md §3.3.
Tensor file_tensor(const ModelSpec& s, const ParamSpec& p, const ParamStore& params) {
  if (p.role != ParamRole::kVector) return params.get(p.name).value;
  const Tensor t = gguf_holds_neg_exp(p.name) ? params.neg_exp(p.name) : params.f32(p.name);
  const int64_t n = t.numel();
  if (p.name.ends_with(".conv1d.weight")) return t.reshape({p.shape[0], p.shape[2]});
  if (s.architecture != "mamba2") return t;
  const MixerConfig& c = s.blocks.front().config;
  if (p.name.ends_with(".mixer.norm.weight")) return t.reshape({c.integer("n_groups"), n / c.integer("n_groups")});
  if (p.name.ends_with(".A_log")) return t.reshape({n, 1});
  if (p.name.ends_with(".mixer.D")) return t.reshape({c.integer("n_heads"), n / c.integer("n_heads")});
  return t;
}

// The file type named after a type of matrices; of the K types the mixed one ("M"), whose name fits any mixture.
int64_t file_type_named(DType t) {
  switch (t) {
    case DType::kF16:
      return 1;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ8_0:
      return 7;
    case DType::kQ5_0:
      return 8;
    case DType::kQ5_1:
      return 9;
    case DType::kQ2_K:
      return 10;
    case DType::kQ3_K:
      return 12;
    case DType::kQ4_K:
      return 15;
    case DType::kQ5_K:
      return 17;
    case DType::kQ6_K:
      return 18;
    case DType::kIQ4_NL:
      return 25;
    case DType::kIQ4_XS:
      return 30;
    case DType::kBF16:
      return 32;
    default:
      return 0;
  }
}

// By the type that most elements of the matrices and tables have.
int64_t file_type_of(const ModelSpec& s, const ParamStore& params) {
  std::map<DType, int64_t> elements;
  for (const ParamSpec& p : model_params(s)) {
    if (p.role != ParamRole::kVector) elements[params.get(p.name).value.dtype()] += p.shape.numel();
  }
  const auto most = std::ranges::max_element(elements, {}, [](const auto& e) { return e.second; });
  return file_type_named(most->first);
}

bool has_key(const GgufValues& v, std::string_view key) {
  return std::ranges::any_of(v, [&](const auto& pair) { return pair.first == key; });
}

}  // namespace

GgufValues gguf_values(const ModelSpec& s) {
  check_uniform(s);
  return Values(s).build();
}

void save_gguf(const ModelSpec& s, const ParamStore& params, const std::filesystem::path& out,
               const GgufValues& tokenizer, const io::Poll& poll, std::optional<int64_t> file_type) {
  GgufValues values = gguf_values(s);
  values.emplace_back("general.file_type", file_type.value_or(file_type_of(s, params)));
  for (const auto& [key, value] : tokenizer) {
    if (has_key(values, key)) fail_usage("[gguf] the key " + key + " belongs to the model");
  }
  const bool vocabulary = has_key(tokenizer, "tokenizer.ggml.model");
  if (!vocabulary) values.emplace_back("tokenizer.ggml.model", std::string("none"));
  if (!s.eos_ids.empty() && !has_key(tokenizer, "tokenizer.ggml.eos_token_id")) {
    values.emplace_back("tokenizer.ggml.eos_token_id", int64_t{s.eos_ids.front()});
  }
  values.insert(values.end(), tokenizer.begin(), tokenizer.end());
  std::vector<io::NamedTensor> tensors;
  bool quantized = false;
  for (const ParamSpec& p : model_params(s)) {
    tensors.push_back({gguf_tensor_name(p.name), file_tensor(s, p, params)});
    quantized = quantized || is_block_type(tensors.back().tensor.dtype());
  }
  if (quantized) values.emplace_back("general.quantization_version", kQuantizationVersion);
  io::write_gguf(out, values, tensors, poll);
}

}  // namespace krait
