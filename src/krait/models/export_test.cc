#include "krait/models/export.h"

#include <gmock/gmock.h>

#include <cstring>

#include "krait/core/error.h"
#include "krait/models/load.h"
#include "krait/models/test_specs.h"

namespace krait::test {
namespace {

using testing::HasSubstr;

// Either a form holds all of a model, or it refuses it.
void expect_round_trip_or_refusal(const std::string& name, ModelSpec spec, CheckpointForm form) {
  SCOPED_TRACE(name);
  const TestFolder out;
  const ParamStore params = tiny_params(spec, DType::kBF16);
  try {
    save_folder(spec, params, out / "m", form);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage);
    EXPECT_FALSE(fs::exists(out / "m"));
    return;
  }
  const auto c = io::Checkpoint::open(out / "m");
  const FamilyInfo& family = find_family(*c);
  const ModelSpec read = family.parse(*c);
  if (std::string(family.name) == "transformers") {
    spec.vocab_size = spec.padded_vocab_size;  // that form counts the padding; the tokenizer knows better
  } else {
    spec.eos_ids.clear();  // that form leaves them to the tokenizer
  }
  expect_same_spec(read, spec);
  const ParamStore loaded = load_params(*c, family, read);
  for (const ParamSpec& p : model_params(spec)) {
    const Tensor &a = loaded.get(p.name).value, &b = params.get(p.name).value;
    ASSERT_EQ(a.dtype(), b.dtype()) << p.name;
    EXPECT_EQ(std::memcmp(a.bytes(), b.bytes(), static_cast<size_t>(b.nbytes())), 0) << p.name;
  }
}

TEST(ExportFolder, EveryModelSurvivesOrIsRefused) {
  for (const auto& [name, spec] : all_tiny_specs()) {
    expect_round_trip_or_refusal(name + ", auto", spec, CheckpointForm::kAuto);
    expect_round_trip_or_refusal(name + ", transformers", spec, CheckpointForm::kTransformers);
    expect_round_trip_or_refusal(name + ", state-spaces", spec, CheckpointForm::kStateSpaces);
  }
}

TEST(ExportFolder, ChoosesTheTransformersFormWhereItCan) {
  EXPECT_NE(config_json(tiny_mamba1(), CheckpointForm::kAuto).find("model_type"), nullptr);
  EXPECT_NE(config_json(tiny_mamba2(), CheckpointForm::kAuto).find("model_type"), nullptr);
  EXPECT_EQ(config_json(tiny_mamba3(), CheckpointForm::kAuto).find("model_type"), nullptr);
  EXPECT_THAT(io::message_of(ErrorCode::kUsage, [] { config_json(tiny_mamba3(), CheckpointForm::kTransformers); }),
              HasSubstr("no Mamba-3"));
  EXPECT_THAT(
      io::message_of(ErrorCode::kUsage, [] { config_json(all_tiny_specs()[3].second, CheckpointForm::kStateSpaces); }),
      HasSubstr("no FalconMamba"));
}

TEST(ExportFolder, RefusesAnglesThatNoRopeFractionGives) {
  Mamba3Settings m = mamba3_settings();
  m.n_angles = 3;  // of 8 / 4 = 2 or 8 / 2 = 4
  EXPECT_THAT(io::message_of(ErrorCode::kUsage, [&] { config_json(tiny_mamba3(m), CheckpointForm::kAuto); }),
              HasSubstr("3 angles"));
}

TEST(ExportFolder, TrapC7_RefusesMlpWidthsThatWouldBeRoundedUp) {
  EXPECT_THAT(io::message_of(ErrorCode::kUsage,
                             [&] { config_json(tiny_mamba3(mamba3_settings(), 24), CheckpointForm::kAuto); }),
              HasSubstr("this model has 24"));
}

TEST(ExportFolder, DoesNotOverwrite) {
  const TestFolder out;
  const ModelSpec spec = tiny_mamba2();
  save_folder(spec, tiny_params(spec), out / "m", CheckpointForm::kAuto);
  EXPECT_THAT(io::message_of(ErrorCode::kUsage,
                             [&] { save_folder(spec, tiny_params(spec), out / "m", CheckpointForm::kAuto); }),
              HasSubstr("exists already"));
}

}  // namespace
}  // namespace krait::test
