// GGUF files: general.architecture mamba (Mamba-1 and FalconMamba), mamba2, falcon-mamba (spec/gguf.md §2, §3), and
// our own mamba3, krait-mamba, krait-mamba2 (docs/formats.md).
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <string_view>

#include "krait/core/error.h"
#include "krait/io/gguf.h"
#include "krait/io/problems.h"
#include "krait/models/family.h"
#include "krait/models/gguf_names.h"

namespace krait {
namespace {

bool matches(const io::Checkpoint& c) { return c.gguf() != nullptr; }

// The metadata of one architecture: its keys without their prefix, and our own ("krait.…"). What is wrong with a key is
// noted, and a harmless value stands for it, until raise_if_any().
class Keys {
 public:
  explicit Keys(const io::Gguf& g) : gguf(g), architecture(g.str("general.architecture")) {
    base = architecture.starts_with(kOwnArchitecture) ? architecture.substr(kOwnArchitecture.size()) : architecture;
    if (base != "mamba" && base != "mamba2" && base != "falcon-mamba" && base != "mamba3") {
      fail_data("[config] GGUF architecture '" + architecture +
                "' is not supported yet; supported: mamba, mamba2, falcon-mamba, mamba3");
    }
    if (const std::string type = g.str_or("general.type", "model"); type != "model") {
      fail_data("[config] general.type is '" + type + "', only models are supported");
    }
    for (const auto& [key, value] : g.values()) {
      if (key.starts_with("krait.") && std::ranges::find(gguf_key::kAll, key) == gguf_key::kAll.end()) {
        problems_.add("the GGUF file has the key '" + key + "', which this version does not know");
      }
    }
  }
  std::string name(const std::string& key) const { return key.starts_with("krait.") ? key : architecture + "." + key; }
  bool has(const char* key) const { return gguf.has(name(key)); }
  int64_t integer(const char* key) const {
    return noted(int64_t{1}, [&] { return gguf.integer(name(key)); });
  }
  int64_t integer_or(const char* key, int64_t otherwise) const {
    return noted(otherwise, [&] { return gguf.integer_or(name(key), otherwise); });
  }
  double number_or(const char* key, double otherwise) const {
    return noted(otherwise, [&] { return gguf.number_or(name(key), otherwise); });
  }
  bool boolean_or(const char* key, bool otherwise) const {
    return noted(otherwise, [&] { return gguf.boolean_or(name(key), otherwise); });
  }
  // At least 1 and at most `most`.
  int64_t size(const char* key, int64_t most = kMostSize) const {
    return noted(int64_t{1}, [&] {
      const int64_t v = gguf.integer(name(key));
      check_positive(name(key).c_str(), v, most);
      return v;
    });
  }
  template <class F>
  void check(F f) const {
    noted(0, [&] { return f(), 0; });
  }
  void raise_if_any(const std::string& file) const { problems_.throw_if_any("config", file); }

  const io::Gguf& gguf;
  std::string architecture, base;

 private:
  // What `look_up` returns, or `otherwise` if it throws.
  template <class T, class F>
  T noted(T otherwise, F look_up) const {
    try {
      return look_up();
    } catch (const Error& e) {
      problems_.add(std::string(io::inner_message(e)));
      return otherwise;
    }
  }

  mutable io::Problems problems_;
};

// Vocabulary rows that only pad the table: converters call them [PAD<id>] and mark them unused.
int64_t padding_rows(const io::Gguf& g, int64_t rows) {
  if (!g.has("tokenizer.ggml.tokens") || !g.has("tokenizer.ggml.token_type")) return 0;
  constexpr int32_t kUnused = 5;
  const std::vector<std::string> tokens = g.strings("tokenizer.ggml.tokens");
  const std::vector<int32_t> types = g.integers32("tokenizer.ggml.token_type");
  if (static_cast<int64_t>(tokens.size()) != rows || types.size() != tokens.size()) return 0;
  size_t n = tokens.size();
  while (n > 1 && types[n - 1] == kUnused && tokens[n - 1] == fmt::format("[PAD{}]", n - 1)) --n;
  return static_cast<int64_t>(tokens.size() - n);
}

// A negative id says that there is none.
std::vector<int32_t> read_eos_ids(const io::Gguf& g, int64_t rows) {
  std::vector<int32_t> ids;
  if (g.has(gguf_key::kEosIds)) {
    ids = g.integers32(gguf_key::kEosIds);
  } else if (const int64_t id = g.integer_or("tokenizer.ggml.eos_token_id", -1); id >= 0) {
    ids = {static_cast<int32_t>(std::min<int64_t>(id, std::numeric_limits<int32_t>::max()))};
  }
  for (const int32_t id : ids) {
    if (id < 0 || id >= rows)
      fail_data(fmt::format("[config] the id {} ends a text, but the vocabulary has {} rows", id, rows));
  }
  return ids;
}

// The sizes of the vocabulary, which the table fixes.
void parse_vocabulary(const io::Checkpoint& c, const Keys& k, ModelSpec& spec) {
  if (!c.has("token_embd.weight") || c.shape("token_embd.weight").rank() != 2) {
    fail_data("[load] token_embd.weight is missing or not a matrix");
  }
  spec.padded_vocab_size = c.shape("token_embd.weight")[0];
  const int64_t padding = padding_rows(k.gguf, spec.padded_vocab_size);
  spec.vocab_size = k.integer_or(gguf_key::kVocabSize, k.integer_or("vocab_size", spec.padded_vocab_size) - padding);
  check_positive("vocab_size", spec.vocab_size, spec.padded_vocab_size);
  spec.eos_ids = read_eos_ids(k.gguf, spec.padded_vocab_size);
}

void parse_shell(const io::Checkpoint& c, const Keys& k, ModelSpec& spec) {
  spec.d_model = k.size("embedding_length");
  spec.n_layer = k.size("block_count", kMostLayers);
  k.check([&] { parse_vocabulary(c, k, spec); });
  spec.rms_norm = !k.has("attention.layer_norm_epsilon");
  spec.norm_eps =
      k.number_or(spec.rms_norm ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", 1e-5);
  spec.tie_embeddings = !c.has("output.weight");
}

template <class Settings>
void parse_dt(const Keys& k, Settings& m) {
  m.dt_min = k.number_or(gguf_key::kDtMin, m.dt_min);
  m.dt_max = k.number_or(gguf_key::kDtMax, m.dt_max);
  m.dt_init_floor = k.number_or(gguf_key::kDtFloor, m.dt_init_floor);
}

void parse_mamba1(const io::Checkpoint& c, const Keys& k, ModelSpec& spec) {
  Mamba1Settings m;
  m.d_inner = k.size("ssm.inner_size");  // any: that llama.cpp wants 2·D is its own affair (trap C14)
  m.d_conv = k.integer_or("ssm.conv_kernel", 4);
  m.d_state = k.integer_or("ssm.state_size", 16);
  m.dt_rank = k.integer_or("ssm.time_step_rank", round_up(spec.d_model, 16) / 16);
  m.conv_bias = c.has("blk.0.ssm_conv1d.bias");
  m.bias = c.has("blk.0.ssm_in.bias");
  m.dt_scale = k.number_or(gguf_key::kDtScale, m.dt_scale);
  parse_dt(k, m);
  const bool falcon = k.boolean_or("ssm.dt_b_c_rms", k.base == "falcon-mamba");
  spec.architecture = falcon ? "falcon_mamba" : "mamba";
  if (falcon) m.dt_b_c_norm_eps = k.number_or(gguf_key::kDtBcEps, 1e-6);  // the original's, not the layers' (trap C4)
  for (int64_t i = 0; i < spec.n_layer; ++i) push_mamba1(spec, i, m);
}

// The file fixes the grouping of the gated norm by the shape [G, E/G] of its weight; the key must say the same.
void check_groups(const io::Checkpoint& c, int64_t n_groups) {
  const char* name = "blk.0.ssm_norm.weight";
  if (!c.has(name) || c.shape(name).rank() != 2 || c.shape(name)[0] == n_groups) return;
  fail_data(fmt::format("[config] {} is {}, but ssm.group_count is {}", name, c.shape(name).str(), n_groups));
}

void parse_mamba2(const io::Checkpoint& c, const Keys& k, ModelSpec& spec) {
  Mamba2Settings m;
  m.d_ssm = k.size("ssm.inner_size");
  m.d_inner = k.integer_or(gguf_key::kInnerWidth, m.d_ssm);
  m.d_conv = k.integer_or("ssm.conv_kernel", 4);
  m.d_state = k.integer_or("ssm.state_size", 128);
  m.n_heads = k.size("ssm.time_step_rank");  // the number of heads, not a rank
  m.n_groups = k.integer_or("ssm.group_count", 1);
  m.headdim = m.d_ssm / m.n_heads;
  m.conv_bias = c.has("blk.0.ssm_conv1d.bias");
  m.bias = c.has("blk.0.ssm_in.bias");
  m.norm_eps = k.number_or(gguf_key::kNormEps, spec.norm_eps);
  m.rmsnorm = k.boolean_or(gguf_key::kGatedNorm, true);
  m.norm_before_gate = k.boolean_or(gguf_key::kNormBeforeGate, false);
  m.D_has_hdim = k.boolean_or(gguf_key::kPerChannelD, false);
  m.learned_initial_state = k.boolean_or(gguf_key::kInitialState, false);
  m.dt_limit_min = k.number_or(gguf_key::kDtLimitMin, 0);
  m.dt_limit_max = k.number_or(gguf_key::kDtLimitMax, std::numeric_limits<double>::infinity());
  m.A_init_min = k.number_or(gguf_key::kAInitMin, m.A_init_min);
  m.A_init_max = k.number_or(gguf_key::kAInitMax, m.A_init_max);
  parse_dt(k, m);
  if (m.rmsnorm && !m.norm_before_gate) k.check([&] { check_groups(c, m.n_groups); });
  spec.architecture = "mamba2";
  for (int64_t i = 0; i < spec.n_layer; ++i) push_mamba2(spec, i, m);
}

void parse_mamba3(const Keys& k, ModelSpec& spec) {
  Mamba3Settings m;
  m.d_inner = k.size("ssm.inner_size");
  m.n_heads = k.size("ssm.time_step_rank");
  m.headdim = m.d_inner / m.n_heads;
  m.d_state = k.size("ssm.state_size");
  m.n_groups = k.integer_or("ssm.group_count", 1);
  m.n_angles = k.integer(gguf_key::kAngles);
  m.is_mimo = k.has(gguf_key::kMimoRank);
  m.mimo_rank = k.integer_or(gguf_key::kMimoRank, 1);
  m.is_outproj_norm = k.boolean_or(gguf_key::kOutputNorm, false);
  m.softplus_A = k.boolean_or(gguf_key::kSoftplusA, false);
  m.A_floor = k.number_or(gguf_key::kAFloor, m.A_floor);
  m.norm_eps = k.number_or(gguf_key::kNormEps, spec.norm_eps);
  parse_dt(k, m);
  spec.architecture = "mamba3";
  for (int64_t i = 0; i < spec.n_layer; ++i) push_mamba3(spec, i, m);
}

ModelSpec parse(const io::Checkpoint& c) {
  const Keys k(*c.gguf());
  ModelSpec spec;
  parse_shell(c, k, spec);
  if (k.base == "mamba2") {
    parse_mamba2(c, k, spec);
  } else if (k.base == "mamba3") {
    parse_mamba3(k, spec);
  } else {
    parse_mamba1(c, k, spec);
  }
  if (k.integer_or("feed_forward_length", 0) != 0) {
    interleave_mlp(spec, k.size("feed_forward_length"));
  }
  k.raise_if_any(c.path().string());
  return spec;
}

WeightSource source(const io::Checkpoint&, const ModelSpec&, const std::string& canonical) {
  return {gguf_tensor_name(canonical), gguf_holds_neg_exp(canonical)};
}

}  // namespace

const FamilyInfo& gguf_family() {
  static const FamilyInfo info{"gguf", matches, parse, source};
  return info;
}

}  // namespace krait
