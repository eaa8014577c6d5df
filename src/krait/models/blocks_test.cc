// Models whose matrices stand in blocks: loading, refusing and writing them.
#include <gmock/gmock.h>

#include <cstring>

#include "krait/core/error.h"
#include "krait/models/export_gguf.h"
#include "krait/models/load.h"
#include "krait/models/test_specs.h"

namespace krait::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr DType kBlockTypes[] = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,   DType::kQ5_0,
                                 DType::kQ5_1, DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,
                                 DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS};

// Where a block has its halves: one or two, side by side.
struct Halves {
  int64_t begin;
  int count;
};
Halves halves_of(DType t) {
  const bool at_end = t == DType::kQ2_K || t == DType::kQ3_K || t == DType::kQ6_K;
  const bool two =
      t == DType::kQ2_K || t == DType::kQ4_K || t == DType::kQ5_K || t == DType::kQ4_1 || t == DType::kQ5_1;
  const int count = two ? 2 : 1;
  return {at_end ? block_of(t).bytes - 2 * count : 0, count};
}
void set_half(Tensor& t, int64_t block, int half, uint16_t value) {
  std::memcpy(t.bytes() + block * block_of(t.dtype()).bytes + halves_of(t.dtype()).begin + 2 * half, &value, 2);
}

// Random codes; halves are small positive numbers, so that no value is far from 1.
Tensor random_blocks(const Shape& shape, DType type) {
  Tensor t = Tensor::empty(shape, type);
  Rng rng(static_cast<uint64_t>(type));
  for (int64_t i = 0; i < t.nbytes(); ++i) t.bytes()[i] = static_cast<std::byte>(rng.next_u64());
  for (int64_t b = 0; b < t.numel() / block_of(type).elements; ++b) {
    for (int half = 0; half < halves_of(type).count; ++half) set_half(t, b, half, 0x1000);
  }
  return t;
}

ModelSpec wide_mamba1(int64_t dt_rank) {
  ModelSpec s = shell("mamba");
  s.d_model = 256;
  Mamba1Settings m;
  m.d_inner = 256;
  m.dt_rank = dt_rank;
  for (int64_t i = 0; i < s.n_layer; ++i) push_mamba1(s, i, m);
  return s;
}

// The model's matrices and tables in `type`, those whose rows do not fit in f16.
ParamStore blocked(const ModelSpec& spec, DType type) {
  ParamStore params = tiny_params(spec, DType::kF16);
  for (const ParamSpec& p : model_params(spec)) {
    if (p.role != ParamRole::kVector && p.shape[-1] % block_of(type).elements == 0) {
      params.set(p.name, {random_blocks(p.shape, type), false});
    }
  }
  return params;
}

struct Read {
  ModelSpec spec;
  ParamStore params;
};
Read read(const fs::path& file) {
  const auto c = io::Checkpoint::open(file);
  const FamilyInfo& family = find_family(*c);
  ModelSpec spec = family.parse(*c);
  ParamStore params = load_params(*c, family, spec);
  return {std::move(spec), std::move(params)};
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.bytes(), b.bytes(), static_cast<size_t>(a.nbytes())) == 0;
}

// Trap D1: dt_proj of these ranks stands beside blocks in the type its rows allow; the file is read as it was written.
TEST(Blocks, TrapD1_EveryTypeAndDtRankSurvivesTheRoundTrip) {
  for (const int64_t dt_rank : {1, 16, 48, 50, 64}) {
    const ModelSpec spec = wide_mamba1(dt_rank);
    for (const DType type : kBlockTypes) {
      SCOPED_TRACE(std::string(name_of(type)) + ", dt_rank " + std::to_string(dt_rank));
      const TestFolder out;
      const ParamStore params = blocked(spec, type);
      save_gguf(spec, params, out / "m.gguf", {});
      const Read r = read(out / "m.gguf");
      expect_same_spec(r.spec, spec);
      for (const ParamSpec& p : model_params(spec)) {
        if (p.role != ParamRole::kVector) {
          EXPECT_TRUE(same_bits(r.params.get(p.name).value, params.get(p.name).value)) << p.name;
        }
      }
      EXPECT_EQ(r.params.get("backbone.layers.0.mixer.in_proj.weight").value.dtype(), type);
      const bool fits = dt_rank % block_of(type).elements == 0;
      EXPECT_EQ(r.params.get("backbone.layers.0.mixer.dt_proj.weight").value.dtype(), fits ? type : DType::kF16);
    }
  }
}

TEST(Blocks, FilesSayWhatMostOfThemIs) {
  const ModelSpec spec = wide_mamba1(16);
  const TestFolder out;
  const std::pair<DType, int64_t> want[] = {
      {DType::kQ8_0, 7}, {DType::kQ4_0, 2}, {DType::kQ4_K, 15}, {DType::kQ6_K, 18}};
  for (const auto& [type, number] : want) {
    ParamStore params = blocked(spec, type);
    params.set(kEmbeddingName, {random_blocks({24, 256}, DType::kQ6_K), false});
    save_gguf(spec, params, out / "m.gguf", {});
    const auto g = io::Gguf::open(out / "m.gguf");
    EXPECT_EQ(g->integer("general.file_type"), number);
    EXPECT_EQ(g->integer("general.quantization_version"), 2);
  }
  save_gguf(spec, tiny_params(spec, DType::kF16), out / "plain.gguf", {});
  EXPECT_FALSE(io::Gguf::open(out / "plain.gguf")->has("general.quantization_version"));
}

// A file of the model in which some tensors are others.
class Edited {
 public:
  explicit Edited(const ModelSpec& spec, const ParamStore& params) {
    save_gguf(spec, params, out_ / "m.gguf", {});
    const auto g = io::Gguf::open(out_ / "m.gguf");
    values_.assign(g->values().begin(), g->values().end());
    for (const auto& [name, t] : g->tensors()) tensors[name] = t.clone();
  }
  Read load() const {
    std::vector<io::NamedTensor> list;
    for (const auto& [name, t] : tensors) list.push_back({name, t});
    io::write_gguf(out_ / "edited.gguf", values_, list);
    return read(out_ / "edited.gguf");
  }
  std::string refusal() const {
    try {
      load();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadData);
      return e.what();
    }
    return "accepted";
  }

  std::map<std::string, Tensor> tensors;

 private:
  TestFolder out_;
  GgufValues values_;
};

TEST(Blocks, VectorsLeaveTheirBlocks) {
  Edited file(wide_mamba1(16), blocked(wide_mamba1(16), DType::kQ4_K));
  Tensor norm = Tensor::zeros({256}, DType::kQ8_0);
  for (int64_t i = 0; i < 8; ++i) {
    set_half(norm, i, 0, 0x3800);                                                                      // 0.5
    for (int64_t q = 0; q < 3; ++q) norm.bytes()[34 * i + 2 + q] = static_cast<std::byte>(2 + 2 * q);  // 1, 2, 3
  }
  file.tensors["blk.1.attn_norm.weight"] = norm;
  const Read r = file.load();
  const Tensor t = r.params.get("backbone.layers.1.norm.weight").value;
  EXPECT_EQ(t.dtype(), DType::kF32);
  EXPECT_EQ(t.f32()[34], 3);
  EXPECT_EQ(r.params.f32("backbone.layers.1.norm.weight").f32()[224], 1);
}

// Trap C15: a scale that is infinite or NaN makes every value of its block one, as a NaN among plain weights.
TEST(Blocks, TrapC15_ScalesThatAreNotFiniteAreRefused) {
  const ModelSpec spec = wide_mamba1(16);
  for (const DType type : kBlockTypes) {
    SCOPED_TRACE(name_of(type));
    const BlockLayout layout = block_of(type);
    EXPECT_EQ(count_non_finite(random_blocks({4, 512}, type)), 0);
    Edited file(spec, blocked(spec, type));
    Tensor& t = file.tensors["blk.1.ssm_in.weight"];
    const Tensor good = t.clone();
    for (int half = 0; half < halves_of(type).count; ++half) {
      for (const uint16_t bad : {uint16_t{0x7C00}, uint16_t{0xFC00}, uint16_t{0x7E01}}) {
        t = good.clone();
        set_half(t, 3, half, bad);
        EXPECT_EQ(count_non_finite(t), layout.elements);
        EXPECT_EQ(count_non_finite(to_f32(t)), layout.elements);
      }
    }
    EXPECT_THAT(file.refusal(), HasSubstr("not finite: " + std::to_string(layout.elements) +
                                          " of 131072 values of blk.1.ssm_in.weight are NaN or infinite"));
  }
}

TEST(Blocks, MisshapenBlocksAreNamed) {
  Edited file(wide_mamba1(16), blocked(wide_mamba1(16), DType::kQ8_0));
  file.tensors["blk.0.ssm_out.weight"] = random_blocks({512, 256}, DType::kQ8_0);
  file.tensors["blk.0.ssm_x.weight"] = random_blocks({1, 48 * 256}, DType::kQ8_0);
  file.tensors["blk.1.ssm_dt.weight"] = Tensor::zeros({256, 16}, DType::kI8);
  EXPECT_THAT(file.refusal(),
              AllOf(HasSubstr("3 problem"), HasSubstr("blk.0.ssm_out.weight is [512, 256]"),
                    HasSubstr("blk.0.ssm_x.weight is [1, 12288]"), HasSubstr("blk.1.ssm_dt.weight is i8")));
}

TEST(Blocks, CastingLeavesBlocks) {
  const ModelSpec spec = wide_mamba1(16);
  ParamStore params = blocked(spec, DType::kQ5_K);
  const Tensor before = to_f32(params.get(kEmbeddingName).value);
  cast_matrices(params, spec, DType::kF32);
  EXPECT_TRUE(same_bits(params.get(kEmbeddingName).value, before));
}

}  // namespace
}  // namespace krait::test
