#include "krait/models/export_gguf.h"

#include <gmock/gmock.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "krait/core/error.h"
#include "krait/models/load.h"
#include "krait/models/test_specs.h"

namespace krait::test {
namespace {

using testing::HasSubstr;

std::string slurp(const fs::path& p) {
  std::ifstream in(p, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct ReadBack {
  std::shared_ptr<const io::Checkpoint> checkpoint;
  ModelSpec spec;
  ParamStore params;
};

ReadBack read_back(const fs::path& file) {
  ReadBack r;
  r.checkpoint = io::Checkpoint::open(file);
  const FamilyInfo& family = find_family(*r.checkpoint);
  r.spec = family.parse(*r.checkpoint);
  r.params = load_params(*r.checkpoint, family, r.spec);
  return r;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.bytes(), b.bytes(), static_cast<size_t>(a.nbytes())) == 0;
}

std::string refusal(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

// Traps C1 (A is -exp(A_log), once) and C14 (E = 3D): what is written is what is read, bit for bit.
TEST(ExportGguf, TrapC1_TrapC14_EveryModelSurvivesTheRoundTrip) {
  for (const auto& [name, spec] : all_tiny_specs()) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      SCOPED_TRACE(name + ", " + std::string(name_of(dtype)));
      const TestFolder out;
      const ParamStore params = tiny_params(spec, dtype);
      save_gguf(spec, params, out / "m.gguf", {});
      const ReadBack r = read_back(out / "m.gguf");
      expect_same_spec(r.spec, spec);
      for (const ParamSpec& p : model_params(spec)) {
        if (p.role == ParamRole::kVector) {
          const bool A = p.name.ends_with(".A_log");
          EXPECT_TRUE(A ? same_bits(r.params.neg_exp(p.name), params.neg_exp(p.name))
                        : same_bits(r.params.f32(p.name), params.f32(p.name)))
              << p.name;
        } else {
          EXPECT_TRUE(same_bits(r.params.get(p.name).value, params.get(p.name).value)) << p.name;
        }
      }
      save_gguf(r.spec, r.params, out / "again.gguf", {});
      EXPECT_EQ(slurp(out / "m.gguf"), slurp(out / "again.gguf"));
    }
  }
}

// The table of spec/gguf.md §2 and §3.
TEST(ExportGguf, MambaHasLlamasKeysAndShapes) {
  const TestFolder out;
  const ModelSpec spec = tiny_mamba1();
  save_gguf(spec, tiny_params(spec, DType::kF16), out / "m.gguf", {});
  const auto g = io::Gguf::open(out / "m.gguf");
  EXPECT_EQ(g->str("general.architecture"), "mamba");
  EXPECT_EQ(g->integer("general.file_type"), 1);
  const std::map<std::string, int64_t> want = {
      {"context_length", 1 << 20}, {"embedding_length", 12}, {"block_count", 2},     {"feed_forward_length", 0},
      {"attention.head_count", 0}, {"vocab_size", 24},       {"ssm.conv_kernel", 4}, {"ssm.inner_size", 24},
      {"ssm.state_size", 5},       {"ssm.time_step_rank", 3}};
  for (const auto& [key, value] : want) EXPECT_EQ(g->integer("mamba." + key), value) << key;
  EXPECT_EQ(g->number_or("mamba.attention.layer_norm_rms_epsilon", 0), 1e-5);
  EXPECT_FALSE(g->has("mamba.ssm.dt_b_c_rms"));
  EXPECT_EQ(g->str("tokenizer.ggml.model"), "none");
  const std::map<std::string, Shape> shapes = {{"token_embd.weight", {24, 12}},
                                               {"output_norm.weight", {12}},
                                               {"blk.1.attn_norm.weight", {12}},
                                               {"blk.1.ssm_in.weight", {48, 12}},
                                               {"blk.1.ssm_conv1d.weight", {24, 4}},
                                               {"blk.1.ssm_conv1d.bias", {24}},
                                               {"blk.1.ssm_x.weight", {13, 24}},
                                               {"blk.1.ssm_dt.weight", {24, 3}},
                                               {"blk.1.ssm_dt.bias", {24}},
                                               {"blk.1.ssm_a", {24, 5}},
                                               {"blk.1.ssm_d", {24}},
                                               {"blk.1.ssm_out.weight", {12, 24}}};
  EXPECT_EQ(g->tensors().size(), 2 + 2 * (shapes.size() - 2));  // tied: no output.weight
  for (const auto& [name, shape] : shapes) {
    const Tensor& t = g->tensors().at(name);
    EXPECT_EQ(t.shape(), shape) << name;
    const bool matrix = shape.rank() == 2 && name != "blk.1.ssm_a" && name != "blk.1.ssm_conv1d.weight";
    EXPECT_EQ(t.dtype(), matrix ? DType::kF16 : DType::kF32) << name;
  }
  const Tensor& A = g->tensors().at("blk.0.ssm_a");
  for (int64_t i = 0; i < A.numel(); ++i) EXPECT_LT(A.f32()[i], 0);
}

TEST(ExportGguf, Mamba2HasLlamasKeysAndShapes) {
  const TestFolder out;
  Mamba2Settings m = mamba2_settings();
  m.n_groups = 2;
  const ModelSpec spec = tiny_mamba2(m);
  save_gguf(spec, tiny_params(spec, DType::kBF16), out / "m.gguf", {});
  const auto g = io::Gguf::open(out / "m.gguf");
  EXPECT_EQ(g->str("general.architecture"), "mamba2");
  EXPECT_EQ(g->integer("general.file_type"), 32);
  EXPECT_EQ(g->integer("mamba2.ssm.time_step_rank"), 6);  // heads
  EXPECT_EQ(g->integer("mamba2.ssm.group_count"), 2);
  EXPECT_EQ(g->tensors().at("blk.0.ssm_in.weight").shape(), Shape({2 * 24 + 2 * 2 * 5 + 6, 12}));
  EXPECT_EQ(g->tensors().at("blk.0.ssm_a").shape(), Shape({6, 1}));
  EXPECT_EQ(g->tensors().at("blk.0.ssm_d").shape(), Shape({6, 1}));
  EXPECT_EQ(g->tensors().at("blk.0.ssm_dt.bias").shape(), Shape({6}));
  EXPECT_EQ(g->tensors().at("blk.0.ssm_norm.weight").shape(), Shape({2, 12}));
  EXPECT_EQ(g->tensors().at("blk.0.ssm_conv1d.weight").shape(), Shape({24 + 2 * 2 * 5, 4}));
}

// Trap C4: FalconMamba is `mamba` with ssm.dt_b_c_rms; its own epsilon is kept, and assumed where a file lacks it.
TEST(ExportGguf, TrapC4_FalconMambaKeepsItsEpsilon) {
  const TestFolder out;
  Mamba1Settings m;
  m.dt_b_c_norm_eps = 1e-7;
  const ModelSpec spec = tiny_mamba1(m);
  save_gguf(spec, tiny_params(spec), out / "m.gguf", {});
  const ReadBack r = read_back(out / "m.gguf");
  EXPECT_EQ(r.checkpoint->gguf()->str("general.architecture"), "mamba");
  EXPECT_TRUE(r.checkpoint->gguf()->boolean("mamba.ssm.dt_b_c_rms"));
  EXPECT_EQ(r.spec.blocks[0].config.number("dt_b_c_norm_eps"), 1e-7);

  GgufValues values;  // as other writers have it: no epsilon, or the architecture's own name
  for (const auto& [key, value] : r.checkpoint->gguf()->values()) {
    const bool arch = key.starts_with("mamba.");
    if (key == "krait.ssm.dt_b_c_rms_epsilon" || key == "mamba.ssm.dt_b_c_rms") continue;
    values.emplace_back(arch ? "falcon-" + key : key,
                        key == "general.architecture" ? io::Gguf::Value("falcon-mamba") : value);
  }
  std::vector<io::NamedTensor> tensors;
  for (const auto& [name, t] : r.checkpoint->gguf()->tensors()) tensors.push_back({name, t});
  io::write_gguf(out / "other.gguf", values, tensors);
  const ReadBack other = read_back(out / "other.gguf");
  EXPECT_EQ(other.spec.architecture, "falcon_mamba");
  EXPECT_EQ(other.spec.blocks[0].config.number("dt_b_c_norm_eps"), 1e-6);
}

TEST(ExportGguf, WhatLlamaLacksIsNotCalledByItsNames) {
  for (const auto& [name, spec] : all_tiny_specs()) {
    const auto values = gguf_values(spec);
    const std::string arch = std::get<std::string>(values.front().second);
    const bool own = name == "mamba2 dt_limit" || name == "mamba2 of all options" ||
                     name == "mamba2 without gated norm" || name == "mamba2 with LayerNorm";
    EXPECT_EQ(arch.starts_with("krait-"), own) << name << ": " << arch;
  }
}

// Trap C7: rows that pad the vocabulary are known as such, ours by a key, llama.cpp's by the tokens' names.
TEST(ExportGguf, TrapC7_PaddedRowsAreNoTokens) {
  const TestFolder out;
  ModelSpec spec = tiny_mamba2();  // 21 of 24 rows
  const ParamStore params = tiny_params(spec);
  spec.vocab_size = 24;
  std::vector<std::string> tokens;
  std::vector<int64_t> types;
  for (int i = 0; i < 24; ++i) {
    tokens.push_back(i < 21 ? "t" + std::to_string(i) : "[PAD" + std::to_string(i) + "]");
    types.push_back(i < 21 ? 1 : 5);
  }
  save_gguf(spec, params, out / "m.gguf",
            {{"tokenizer.ggml.model", std::string("gpt2")},
             {"tokenizer.ggml.tokens", tokens},
             {"tokenizer.ggml.token_type", types},
             {"tokenizer.ggml.eos_token_id", int64_t{3}}});
  const ReadBack r = read_back(out / "m.gguf");
  EXPECT_EQ(r.spec.vocab_size, 21);
  EXPECT_EQ(r.spec.padded_vocab_size, 24);
  EXPECT_EQ(r.spec.eos_ids, (std::vector<int32_t>{3}));
}

TEST(ExportGguf, RefusesWhatItCannotExpress) {
  const TestFolder out;
  ModelSpec mixed = tiny_mamba2();
  mixed.blocks[1].config.set("d_state", 6);
  EXPECT_THAT(refusal([&] { gguf_values(mixed); }), HasSubstr("sub-block 1 (mamba2) differs"));
  EXPECT_THAT(refusal([&] { config_json(mixed, CheckpointForm::kAuto); }), HasSubstr("sub-block 1 (mamba2) differs"));
  ModelSpec renamed = tiny_mamba2();
  renamed.blocks[0].prefix = "elsewhere";
  EXPECT_THAT(refusal([&] { gguf_values(renamed); }), HasSubstr("sub-block 0"));
  const ModelSpec spec = tiny_mamba2();
  EXPECT_THAT(refusal([&] {
                save_gguf(spec, tiny_params(spec), out / "m.gguf", {{"general.architecture", std::string("x")}});
              }),
              HasSubstr("belongs to the model"));
  EXPECT_FALSE(fs::exists(out / "m.gguf"));
}

// A file of spec's model with one value or tensor changed.
class Changed : public testing::Test {
 protected:
  explicit Changed(const ModelSpec& spec = tiny_mamba2()) {
    save_gguf(spec, tiny_params(spec), out_ / "m.gguf", {});
    gguf_ = io::Gguf::open(out_ / "m.gguf");
    for (const auto& [key, value] : gguf_->values()) values_[key] = value;
    tensors_ = gguf_->tensors();
  }
  std::string refusal_now() {
    std::vector<io::NamedTensor> tensors;
    for (const auto& [name, t] : tensors_) tensors.push_back({name, t});
    io::write_gguf(out_ / "changed.gguf", GgufValues(values_.begin(), values_.end()), tensors);
    return refusal([&] { read_back(out_ / "changed.gguf"); });
  }
  TestFolder out_;
  std::shared_ptr<const io::Gguf> gguf_;
  std::map<std::string, io::Gguf::Value> values_;
  std::map<std::string, Tensor> tensors_;
};

TEST_F(Changed, UnsupportedArchitecturesAreRefusedByName) {
  values_["general.architecture"] = std::string("jamba");
  EXPECT_THAT(refusal_now(), HasSubstr("'jamba' is not supported yet"));
}

TEST_F(Changed, UnknownKeysOfOursAreRefused) {
  values_["krait.ssm.flux"] = true;
  EXPECT_THAT(refusal_now(), HasSubstr("krait.ssm.flux"));
}

TEST_F(Changed, AdaptersAreRefused) {
  values_["general.type"] = std::string("adapter");
  EXPECT_THAT(refusal_now(), HasSubstr("'adapter'"));
}

TEST_F(Changed, TrapC1_AThatIsNotNegativeIsRefused) {
  Tensor a = tensors_.at("blk.1.ssm_a").clone();
  a.f32()[2] = 1.5f;
  tensors_["blk.1.ssm_a"] = a;
  EXPECT_THAT(refusal_now(), HasSubstr("not negative: 1 of 6 values of blk.1.ssm_a"));
}

TEST_F(Changed, TrapC2_GroupsOfTheNormMustBeThoseOfTheKey) {
  for (const char* name : {"blk.0.ssm_norm.weight", "blk.1.ssm_norm.weight"})
    tensors_[name] = tensors_.at(name).reshape({3, 8});
  EXPECT_THAT(refusal_now(), HasSubstr("[3, 8], but ssm.group_count is 1"));
}

TEST_F(Changed, EveryProblemOfTheKeysIsListed) {
  values_.erase("mamba2.block_count");
  values_["mamba2.ssm.inner_size"] = std::string("wide");
  values_["mamba2.ssm.state_size"] = true;
  values_["mamba2.ssm.time_step_rank"] = int64_t{0};
  values_["krait.ssm.flux"] = true;
  values_["krait.vocab_size"] = int64_t{1000};
  const std::string why = refusal_now();
  for (const char* part :
       {"6 problems", "key mamba2.block_count is missing", "mamba2.ssm.inner_size is not an integer",
        "mamba2.ssm.state_size is not", "mamba2.ssm.time_step_rank is 0", "krait.ssm.flux", "vocab_size is 1000"})
    EXPECT_THAT(why, HasSubstr(part));
}

TEST_F(Changed, EveryProblemOfTheTensorsIsListed) {
  tensors_.erase("blk.0.ssm_d");
  tensors_["blk.0.attn_q.weight"] = Tensor::zeros({12, 12});
  tensors_["blk.1.ssm_out.weight"] = Tensor::zeros({12, 25});
  const std::string why = refusal_now();
  for (const char* part :
       {"3 problem", "missing: blk.0.ssm_d", "extra: blk.0.attn_q.weight", "wrong shape: blk.1.ssm_out.weight"}) {
    EXPECT_THAT(why, HasSubstr(part));
  }
}

TEST_F(Changed, AbsurdSizesAreRefused) {
  const auto valid = values_;
  for (const char* key : {"embedding_length", "block_count", "ssm.inner_size", "ssm.time_step_rank"}) {
    for (const int64_t v : {int64_t{0}, int64_t{-4}, int64_t{1} << 40}) {
      values_ = valid;
      values_[std::string("mamba2.") + key] = v;
      EXPECT_THAT(refusal_now(), HasSubstr(key)) << v;
    }
  }
}

}  // namespace
}  // namespace krait::test
