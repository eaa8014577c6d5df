// Block types across the layers: files of the gguf package, and what the program does with quantized models.
#include <cstddef>
#include <cstring>

#include "krait/core/error.h"
#include "krait/infer/verify.h"
#include "krait/io/gguf.h"
#include "krait/io/test_folder.h"
#include "krait/kernels/blocks.h"
#include "krait/models/export_gguf.h"
#include "krait/models/load.h"
#include "krait/ops/dequantize.h"
#include "krait/quant/encode.h"
#include "tests/cli_harness.h"

namespace krait::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(Blocks, AreReadAsTheGgufPackageReadsThem) {
  const auto g = io::Gguf::open(fs::path(KRAIT_SOURCE_DIR) / "tests/fixtures/blocks.gguf");
  std::vector<io::NamedTensor> tensors;
  for (const auto& [name, t] : g->tensors()) {
    tensors.push_back({name, t});
    if (!is_block_type(t.dtype())) continue;
    EXPECT_EQ(name, name_of(t.dtype()));
    const Tensor have = dequantize(t), want = g->tensors().at(name + ".f32");
    ASSERT_EQ(have.shape(), want.shape());
    EXPECT_EQ(std::memcmp(have.bytes(), want.bytes(), static_cast<size_t>(want.nbytes())), 0) << name;
  }
  ASSERT_EQ(tensors.size(), 24u);
  const io::TestFolder folder;
  const fs::path copy = folder / "copy.gguf";
  io::write_gguf(copy, {}, tensors);
  const auto again = io::Gguf::open(copy);
  for (const auto& [name, t] : tensors) {
    const Tensor& u = again->tensors().at(name);
    EXPECT_EQ(u.dtype(), t.dtype());
    EXPECT_EQ(std::memcmp(u.bytes(), t.bytes(), static_cast<size_t>(t.nbytes())), 0) << name;
  }
}

// A model of that generation and of width 256: rows of matrices are whole blocks but for a dt_proj of 48.
ModelSpec wide_spec(const std::string& generation) {
  ModelSpec s = tiny_spec(generation);
  s.d_model = 256;
  s.vocab_size = 259;
  s.padded_vocab_size = 272;
  s.n_layer = 1;
  s.blocks.clear();
  for (int64_t layer = 0; layer < s.n_layer; ++layer) {
    if (generation == "mamba1") {
      Mamba1Settings m;
      m.d_inner = 256;
      m.dt_rank = 48;
      push_mamba1(s, layer, m);
    } else if (generation == "mamba2") {
      Mamba2Settings m;
      m.d_inner = m.d_ssm = 256;
      m.n_heads = 4;
      m.d_state = 16;
      m.dt_limit_max = std::numeric_limits<double>::infinity();
      push_mamba2(s, layer, m);
    } else {
      Mamba3Settings m;
      m.d_inner = 256;
      m.n_heads = 4;
      m.d_state = 16;
      m.n_angles = 4;
      m.is_mimo = generation == "mamba3_mimo";
      m.mimo_rank = 2;
      push_mamba3(s, layer, m);
      push_gated_mlp(s, layer, 256);
    }
  }
  return s;
}

// Matrices in `type` where their rows allow it, else in f16.
ParamStore quantized(const ModelSpec& spec, DType type) {
  ParamStore params = random_params(spec, 1, DType::kF32, pool());
  for (const ParamSpec& p : model_params(spec)) {
    if (p.role == ParamRole::kVector) continue;
    const Tensor t = params.get(p.name).value;
    const bool fits = p.shape[-1] % block_of(type).elements == 0;
    params.set(p.name, {fits ? quant::encode(t, type, {}, pool(), p.name) : from_f32(t, DType::kF16), false});
  }
  return params;
}

class BlocksModel : public testing::TestWithParam<std::string> {};

// Relative RMS errors of logits, measured 0.013 to 0.020 (Q8_0) and 0.12 to 0.18 (Q4_K); a wrong scale or order gives
// about 1.
TEST_P(BlocksModel, LogitsAreNearThoseOfF32) {
  const ModelSpec spec = wide_spec(GetParam());
  const Model exact(spec, random_params(spec, 1, DType::kF32, pool()), runtime());
  const std::vector<int32_t> ids = random_ids(40, spec.vocab_size, 5);
  const Tensor want = all_logits(exact, ids);
  for (const auto& [type, bound] : {std::pair{DType::kQ8_0, 0.03}, {DType::kQ4_K, 0.25}}) {
    const io::TestFolder folder;
    save_gguf(spec, quantized(spec, type), folder / "q.gguf", {});
    const LoadedModel loaded = load_model(folder / "q.gguf", runtime());
    const Tensor have = all_logits(*loaded.model, ids);
    const double error = relative_rms(have.f32(), want.f32(), want.numel());
    EXPECT_LT(error, bound) << name_of(type);
    EXPECT_GT(error, 1e-4) << name_of(type);
    EXPECT_NE(loaded.model->fingerprint(), exact.fingerprint());
  }
}

// The exactness contract holds for every type of weights.
TEST_P(BlocksModel, EveryTypeIsExact) {
  const ModelSpec spec = wide_spec(GetParam());
  VerifyOptions options;
  options.quick = true;
  options.length = 20;
  options.folder = fs::temp_directory_path();
  for (auto type = static_cast<int>(DType::kQ8_0); type <= static_cast<int>(DType::kIQ4_XS); ++type) {
    const Model model(spec, quantized(spec, static_cast<DType>(type)), runtime());
    for (const VerifyRow& r : verify(model, options)) {
      EXPECT_EQ(r.different, 0) << name_of(static_cast<DType>(type)) << ": " << r.check << ": " << r.first;
    }
  }
}

// Products with blocks have the same bits in every kernel set. What is left are the last bits of scans, norms and
// exponentials (2e-7 to 4e-7 here) and the activations whose rounding to 8 bits they tip (up to 4e-4 here, more in
// deeper models: docs/numerics.md). The bound is half of what quantization itself changes.
TEST_P(BlocksModel, TrapD5_LogitsHardlyDependOnTheKernels) {
  const ModelSpec spec = wide_spec(GetParam());
  const std::vector<int32_t> ids = random_ids(40, spec.vocab_size, 5);
  for (const DType type : {DType::kQ8_0, DType::kQ4_K}) {
    const ParamStore params = quantized(spec, type);
    const Tensor want = all_logits(Model(spec, params, runtime(*cpu_kernels("cpu-scalar"))), ids);
    for (const KernelSet* set : cpu_kernel_sets()) {
      const Tensor have = all_logits(Model(spec, params, runtime(*set)), ids);
      EXPECT_LT(relative_rms(have.f32(), want.f32(), want.numel()), 1e-2) << set->name << " " << name_of(type);
    }
  }
}

int64_t offset_of_scale(DType type) {
  switch (type) {
#define KRAIT_OFFSET(name) \
  case DType::k##name:     \
    return offsetof(Block##name, d);
    KRAIT_BLOCK_TYPES(KRAIT_OFFSET)
#undef KRAIT_OFFSET
    default:
      return 0;  // plain halves
  }
}

// Makes the scale of the tensor's last block an infinity.
void spoil(ParamStore& params, const std::string& name) {
  Tensor t = params.get(name).value.clone();
  const uint16_t infinity = 0x7C00;
  const int64_t at = t.nbytes() - block_of(t.dtype()).bytes + offset_of_scale(t.dtype());
  std::memcpy(t.bytes() + at, &infinity, sizeof infinity);
  params.set(name, {t, false});
}

// Trap C15 where matrices are checked as they are packed: a model refuses what the check of its file refuses, in the
// same words.
TEST_P(BlocksModel, TrapC15_PackingRefusesWhatTheCheckOfTheFileDoes) {
  const ModelSpec spec = wide_spec(GetParam());
  for (auto type = static_cast<int>(DType::kQ8_0); type <= static_cast<int>(DType::kIQ4_XS); ++type) {
    const ParamStore good = quantized(spec, static_cast<DType>(type));
    std::vector<std::vector<std::string>> cases(1);  // parameters to spoil; the first case: all
    for (const ParamSpec& p : model_params(spec)) {
      if (p.role == ParamRole::kVector) continue;
      cases.front().push_back(p.name);
      if (static_cast<DType>(type) == DType::kQ4_K) cases.push_back({p.name});
    }
    for (const auto& names : cases) {
      SCOPED_TRACE(std::string(name_of(static_cast<DType>(type))) + " " + names.front());
      ParamStore params = good;
      for (const std::string& name : names) spoil(params, name);
      const io::TestFolder folder;
      save_gguf(spec, params, folder / "q.gguf", {});
      const auto c = io::Checkpoint::open(folder / "q.gguf");
      const std::string want = io::bad_data([&] { load_params(*c, find_family(*c), spec); });
      EXPECT_THAT(want, HasSubstr(std::to_string(names.size()) + " problem(s)"));
      EXPECT_EQ(io::bad_data([&] { load_model(folder / "q.gguf", runtime()); }), want);
      EXPECT_EQ(io::bad_data([&] { load_model(folder / "q.gguf", runtime(), DType::kBF16); }), want);
    }
  }
}

TEST(Blocks, TrapC15_ATiedTableIsCheckedAsItIsPacked) {
  ModelSpec spec = wide_spec("mamba2");
  spec.tie_embeddings = true;
  ParamStore params = quantized(spec, DType::kQ6_K);
  spoil(params, kEmbeddingName);
  const io::TestFolder folder;
  save_gguf(spec, params, folder / "q.gguf", {});
  EXPECT_THAT(io::bad_data([&] { load_model(folder / "q.gguf", runtime()); }),
              HasSubstr("not finite: 256 of 69632 values of token_embd.weight"));
}

INSTANTIATE_TEST_SUITE_P(Wide, BlocksModel, testing::ValuesIn(tiny_names()), [](const auto& i) { return i.param; });

class BlocksProgram : public CliTest {};

TEST_F(BlocksProgram, TrapC15_NoTextComesFromAFileWithAnInfiniteScale) {
  const ModelSpec spec = wide_spec("mamba1");
  ParamStore params = quantized(spec, DType::kQ4_K);
  spoil(params, "backbone.layers.0.mixer.out_proj.weight");
  save_gguf(spec, params, path("q.gguf"), {});
  const Finished run = krait({"run", path("q.gguf"), "--tokenizer", "bytes", "-p", "a", "-n", "1"});
  EXPECT_EQ(run.code, 3);
  EXPECT_EQ(run.out, "");
  EXPECT_THAT(run.err, HasSubstr("not finite: 256 of 65536 values of blk.0.ssm_out.weight are NaN or infinite"));
}

TEST_F(BlocksProgram, ConvertKeepsBlocksInGgufAndWidensThemForFoldersWhenAsked) {
  const ModelSpec spec = wide_spec("mamba1");
  const ParamStore params = quantized(spec, DType::kQ4_K);
  save_gguf(spec, params, path("q.gguf"), {});
  ASSERT_EQ(krait({"convert", path("q.gguf"), path("again.gguf")}).code, 0);
  EXPECT_EQ(read_all(path("again.gguf")), read_all(path("q.gguf")));

  const Finished refused = krait({"convert", path("q.gguf"), path("folder")});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, AllOf(HasSubstr("is q4_k"), HasSubstr("--dtype f32, bf16 or f16")));
  EXPECT_FALSE(fs::exists(path("folder")));
  for (const auto& [name, type] : {std::pair{"f32", DType::kF32}, {"bf16", DType::kBF16}, {"f16", DType::kF16}}) {
    const std::string out = path(std::string("folder-") + name);
    ASSERT_EQ(krait({"convert", path("q.gguf"), out, "--dtype", name}).code, 0);
    const auto c = io::Checkpoint::open(out);
    const ParamStore loaded = load_params(*c, find_family(*c), spec);
    for (const ParamSpec& p : model_params(spec)) {
      if (p.role == ParamRole::kVector) continue;
      const Tensor want = from_f32(dequantize(params.get(p.name).value), type), have = loaded.get(p.name).value;
      EXPECT_EQ(have.dtype(), type);
      EXPECT_EQ(std::memcmp(have.bytes(), want.bytes(), static_cast<size_t>(want.nbytes())), 0) << p.name;
    }
  }
}

TEST_F(BlocksProgram, VerifyAndInspectTakeQuantizedFilesAsTheyAre) {
  save_gguf(wide_spec("mamba2"), quantized(wide_spec("mamba2"), DType::kQ6_K), path("q.gguf"), {});
  const json rows = krait({"verify", path("q.gguf"), "--quick", "--length", "20", "--json"}).parsed()["rows"];
  ASSERT_FALSE(rows.empty());
  for (const json& r : rows) {
    EXPECT_EQ(r["weights"], "file");
    EXPECT_EQ(r["different"], 0) << r.dump();
  }
  const json j = krait({"inspect", path("q.gguf"), "--json"}).parsed();
  EXPECT_EQ(j["weight_types"]["q6_k"]["tensors"], 4);  // table, head, two matrices of the layer
  EXPECT_EQ(j["weight_types"]["q6_k"]["bytes"].get<int64_t>() * 256,
            j["weight_types"]["q6_k"]["parameters"].get<int64_t>() * 210);
  EXPECT_THAT(krait({"inspect", path("q.gguf")}).out, HasSubstr("q6_k         4 tensors"));
}

}  // namespace
}  // namespace krait::test
