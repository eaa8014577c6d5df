// Block types across the layers: files of the gguf package, and what the program does with quantized models.
#include <cstring>

#include "krait/io/gguf.h"
#include "krait/io/test_folder.h"
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

// A Mamba-1 of width 256 whose matrices are in `type` where their rows allow it, else in f16.
ModelSpec wide_spec(int64_t dt_rank) {
  ModelSpec s = tiny_spec("mamba1");
  s.blocks.clear();
  s.d_model = 256;
  s.vocab_size = 259;
  s.padded_vocab_size = 272;
  Mamba1Settings m;
  m.d_inner = 512;
  m.dt_rank = dt_rank;
  for (int64_t layer = 0; layer < s.n_layer; ++layer) push_mamba1(s, layer, m);
  return s;
}
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

class BlocksProgram : public CliTest {};

TEST_F(BlocksProgram, ConvertKeepsBlocksInGgufAndWidensThemForFoldersWhenAsked) {
  const ModelSpec spec = wide_spec(48);
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

}  // namespace
}  // namespace krait::test
