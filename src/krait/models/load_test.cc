#include "krait/models/load.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "krait/core/error.h"
#include "krait/core/half.h"
#include "krait/io/atomic_file.h"
#include "krait/io/safetensors.h"
#include "krait/models/test_specs.h"

namespace krait::test {
namespace {

using io::Json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// A folder of a tiny model whose configuration and tensors a test may change before it is written.
class Folder {
 public:
  explicit Folder(const ModelSpec& spec, CheckpointForm form = CheckpointForm::kAuto, DType dtype = DType::kF32) {
    save_folder(spec, tiny_params(spec, dtype), out_ / "m", form);
    const auto c = io::Checkpoint::open(out_ / "m");
    config = c->config();
    for (const std::string& name : c->names()) tensors[name] = c->tensor(name).clone();
  }

  // Sets a key of the configuration, or of an object in it.
  void set(const std::string& key, Json v) { replace(config, key, std::move(v)); }
  void set_ssm(const std::string& key, Json v) {
    Json inner = config.at("ssm_cfg");
    replace(inner, key, std::move(v));
    replace(config, "ssm_cfg", std::move(inner));
  }

  ModelSpec load() {
    fs::remove_all(out_ / "m");
    fs::create_directories(out_ / "m");
    std::vector<io::NamedTensor> list;
    for (const auto& [name, t] : tensors) list.push_back({name, t});
    io::write_safetensors(out_ / "m" / "model.safetensors", list, {});
    io::write_file(out_ / "m" / "config.json", config.dump(2));
    const auto c = io::Checkpoint::open(out_ / "m");
    const FamilyInfo& family = find_family(*c);
    ModelSpec spec = family.parse(*c);
    params = load_params(*c, family, spec);
    return spec;
  }
  std::string refusal() {
    try {
      load();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadData);
      return e.what();
    }
    return "accepted";
  }

  Json config;
  std::map<std::string, Tensor> tensors;
  ParamStore params;

 private:
  static void replace(Json& object, const std::string& key, Json v) {
    Json out = Json::object();
    for (const auto& [k, old] : object.items()) {
      if (k != key) out.set(k, old);
    }
    out.set(key, std::move(v));
    object = std::move(out);
  }
  TestFolder out_;
};

std::string mixer(int layer, const char* name) { return layer_prefix(layer) + ".mixer." + name; }

TEST(Load, EveryProblemInOneError) {
  Folder f(tiny_mamba2());
  f.tensors.erase(mixer(0, "dt_bias"));
  f.tensors.erase("backbone.norm_f.weight");
  f.tensors[mixer(0, "x_proj.weight")] = Tensor::zeros({3, 4});
  f.tensors[mixer(1, "out_proj.weight")] = Tensor::zeros({12, 25});
  f.tensors[mixer(1, "A_log")] = Tensor::zeros({6}, DType::kI32);
  Tensor D = f.tensors[mixer(1, "D")];
  D.f32()[1] = std::numeric_limits<float>::quiet_NaN();
  D.f32()[4] = -std::numeric_limits<float>::infinity();
  EXPECT_THAT(
      f.refusal(),
      AllOf(HasSubstr("6 problem"), HasSubstr("missing: backbone.layers.0.mixer.dt_bias [6]"),
            HasSubstr("missing: backbone.norm_f.weight [12]"),
            HasSubstr("extra: backbone.layers.0.mixer.x_proj.weight [3, 4]"),
            HasSubstr(
                "wrong shape: backbone.layers.1.mixer.out_proj.weight is [12, 25], the configuration wants [12, 24]"),
            HasSubstr("wrong type: backbone.layers.1.mixer.A_log is i32"),
            HasSubstr("not finite: 2 of 6 values of backbone.layers.1.mixer.D")));
}

TEST(Load, NonFiniteValuesOfEveryType) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    Folder f(tiny_mamba1(), CheckpointForm::kAuto, dtype);
    Tensor t = f.tensors[mixer(1, "in_proj.weight")];
    if (dtype == DType::kF32) {
      t.f32()[7] = std::numeric_limits<float>::infinity();
    } else {
      t.data<uint16_t>()[7] = dtype == DType::kBF16 ? 0xFF80 : 0x7C00;
    }
    EXPECT_THAT(f.refusal(), AllOf(HasSubstr("1 problem"), HasSubstr("not finite: 1 of 576"))) << name_of(dtype);
  }
}

TEST(Load, ManyProblemsAreCutShort) {
  Folder f(tiny_mamba2());
  for (int i = 0; i < 50; ++i) f.tensors["stray." + std::to_string(i)] = Tensor::zeros({1});
  EXPECT_THAT(f.refusal(), AllOf(HasSubstr("50 problem"), HasSubstr("and 30 more")));
}

TEST(Load, TiedHeadMustBeTheEmbedding) {
  Folder f(tiny_mamba2());
  f.tensors["lm_head.weight"] = f.tensors.at("backbone.embeddings.weight").clone();
  EXPECT_EQ(f.refusal(), "accepted");
  f.tensors["lm_head.weight"].f32()[3] += 1;
  EXPECT_THAT(f.refusal(), HasSubstr("lm_head.weight differs from backbone.embeddings.weight"));
}

// Trap C7: the MLP of the original code is wider than its configuration says; the vocabulary is padded.
TEST(Load, TrapC7_MlpWidthIsRoundedUp) {
  Folder f(tiny_mamba3(mamba3_settings(), 256), CheckpointForm::kStateSpaces);
  f.set("d_intermediate", Json(int64_t{130}));
  const ModelSpec spec = f.load();
  EXPECT_EQ(spec.blocks[1].config.integer("d_hidden"), 256);
  EXPECT_EQ(spec.vocab_size, 21);
  EXPECT_EQ(spec.padded_vocab_size, 24);
  f.set("d_intermediate", Json(int64_t{128}));
  EXPECT_THAT(
      f.refusal(),
      HasSubstr("wrong shape: backbone.layers.0.mlp.fc1.weight is [512, 12], the configuration wants [256, 12]"));
}

// Trap C8: the tensors decide about a wrong 'expand' beside a right intermediate_size; a real contradiction is named.
TEST(Load, TrapC8_ConfigurationAgainstTensors) {
  Folder f(tiny_mamba1());
  f.set("expand", Json(int64_t{16}));
  EXPECT_EQ(f.load().blocks[0].config.integer("d_inner"), 24);
  f.set("intermediate_size", Json(int64_t{48}));
  EXPECT_THAT(f.refusal(),
              AllOf(HasSubstr("out_proj.weight is [12, 24]"), HasSubstr("intermediate_size"), HasSubstr("48")));
  Folder g(tiny_mamba2());
  g.set("expand", Json(int64_t{16}));
  EXPECT_THAT(g.refusal(), HasSubstr("num_heads 6 x head_dim 4"));
}

// Trap C9: original folders and transformers folders load without any flag. Codestral prefixes every name.
TEST(Load, TrapC9_CodestralPrefix) {
  ModelSpec spec = tiny_mamba2();
  spec.tie_embeddings = false;
  Folder f(spec);
  std::map<std::string, Tensor> prefixed;
  for (const auto& [name, t] : f.tensors) prefixed["model." + name] = t;
  f.tensors = prefixed;
  EXPECT_EQ(f.refusal(), "accepted");
  EXPECT_TRUE(f.params.has("lm_head.weight"));
  f.tensors.erase("model." + mixer(1, "D"));
  EXPECT_THAT(f.refusal(), HasSubstr("missing: model.backbone.layers.1.mixer.D"));
}

// Trap C10: one id or a list of them ends a text.
TEST(Load, TrapC10_EosIsAnIdOrAList) {
  Folder f(tiny_mamba2());
  EXPECT_TRUE(f.load().eos_ids.empty());
  f.set("eos_token_id", Json(int64_t{7}));
  EXPECT_EQ(f.load().eos_ids, (std::vector<int32_t>{7}));
  Json list = Json::array();
  list.push(Json(int64_t{7}));
  list.push(Json(int64_t{9}));
  f.set("eos_token_id", std::move(list));
  EXPECT_EQ(f.load().eos_ids, (std::vector<int32_t>{7, 9}));
}

TEST(Load, UnsupportedFamiliesAreRefusedByName) {
  Folder f(tiny_mamba2());
  f.set("model_type", Json("jamba"));
  EXPECT_THAT(f.refusal(), HasSubstr("model_type 'jamba' is not supported yet"));
  Folder g(tiny_mamba3());
  g.set_ssm("layer", Json("Mamba7"));
  EXPECT_THAT(g.refusal(), HasSubstr("'Mamba7'"));
  Folder h(tiny_mamba2());
  h.config = Json::object();
  EXPECT_THAT(h.refusal(), HasSubstr("neither 'model_type'"));
}

// Trap C12: time_step_min and _max belong to the initialisation; they never limit dt.
TEST(Load, TrapC12_TimeStepMinIsNoLimit) {
  Folder f(tiny_mamba2());
  f.set("time_step_min", Json(0.5));
  f.set("time_step_max", Json(0.6));
  const MixerConfig c = f.load().blocks.front().config;
  EXPECT_EQ(c.number("dt_limit_min"), 0);
  EXPECT_TRUE(std::isinf(c.number("dt_limit_max")));
}

TEST(Load, EverySizeThatIsNoIntegerIsNamed) {
  Folder f(tiny_mamba2());
  f.set("hidden_size", Json("a"));
  f.set("vocab_size", Json(1.5));
  EXPECT_THAT(f.refusal(), AllOf(HasSubstr("hidden_size: "), HasSubstr("vocab_size: ")));
}

TEST(Load, SettingsThatMakeNoSenseAreRefused) {
  Folder f(tiny_mamba2());
  f.set("layer_norm_epsilon", Json(-1.0));
  f.set("eos_token_id", Json(int64_t{99999}));
  Json limit = Json::array();
  limit.push(Json(1.0));
  limit.push(Json(0.5));
  f.set("time_step_limit", std::move(limit));
  const std::string why = f.refusal();
  EXPECT_THAT(why, HasSubstr("the epsilon of the norms is -1"));
  EXPECT_THAT(why, HasSubstr("is 99999"));
  EXPECT_THAT(why, HasSubstr("the lower limit of dt"));
}

TEST(Load, SettingsThatNothingReadsAreRefused) {
  Folder f(tiny_mamba3());
  f.set_ssm("sparkle", Json(true));
  EXPECT_THAT(f.refusal(), HasSubstr("'sparkle'"));
}

// Trap C5: which form of A a Mamba-3 checkpoint wants is said, never guessed from a value we do not know.
TEST(Load, TrapC5_FormOfA) {
  Folder f(tiny_mamba3());
  EXPECT_FALSE(f.load().blocks[0].config.flag("softplus_A"));
  f.set_ssm("A_activation", Json("softplus"));
  EXPECT_TRUE(f.load().blocks[0].config.flag("softplus_A"));
  f.set_ssm("A_activation", Json("relu"));
  EXPECT_THAT(f.refusal(), HasSubstr("'relu'"));
}

// Files may hold everything in 16 bits, convolutions, A_log and norms too: the model is the one whose tensors have
// those values in f32.
TEST(Load, TrapH7_ConvolutionsAndVectorsOf16Bits) {
  for (const ModelSpec& spec : {tiny_mamba1(), tiny_mamba2(), tiny_mamba3()}) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      Folder half(spec);
      Folder wide(spec);
      for (auto& [name, t] : half.tensors) {
        t = from_f32(t, dtype);
        wide.tensors.at(name) = to_f32(t);
      }
      half.load();
      wide.load();
      for (const ParamSpec& p : model_params(spec)) {
        const Tensor have = half.params.f32(p.name), want = wide.params.f32(p.name);
        ASSERT_EQ(have.shape(), want.shape());
        EXPECT_EQ(std::memcmp(have.bytes(), want.bytes(), static_cast<size_t>(want.nbytes())), 0) << p.name;
      }
    }
  }
}

TEST(Load, AbsurdSizesAreRefused) {
  for (const char* key : {"hidden_size", "num_hidden_layers", "vocab_size"}) {
    for (const int64_t v : {int64_t{0}, int64_t{-1}, int64_t{1} << 40}) {
      Folder f(tiny_mamba2());
      f.set(key, Json(v));
      EXPECT_THAT(f.refusal(), Not(HasSubstr("accepted"))) << key << " " << v;
    }
  }
  for (const char* key : {"num_heads", "head_dim", "state_size", "n_groups", "conv_kernel"}) {
    for (const int64_t v : {int64_t{0}, int64_t{-1}, int64_t{1} << 40}) {
      Folder f(tiny_mamba2());
      f.set(key, Json(v));
      EXPECT_THAT(f.refusal(), Not(HasSubstr("accepted"))) << key << " " << v;
    }
  }
}

}  // namespace
}  // namespace krait::test
