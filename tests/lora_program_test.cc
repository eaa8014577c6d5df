// Adapters on the command line: --lora, krait lora merge and combine, what is refused.
#include "krait/io/npy.h"
#include "krait/models/peft.h"
#include "tests/cli_harness.h"
#include "tests/lora_models.h"

namespace krait::test {
namespace {

using testing::HasSubstr;

class LoraProgram : public CliTest {
 protected:
  // Folder of a random adapter of the model.
  std::string adapter(const std::string& of, uint64_t seed) const {
    const auto c = io::Checkpoint::open(of);
    write_adapter(path("a" + std::to_string(seed)), random_adapter(find_family(*c).parse(*c), seed));
    return path("a" + std::to_string(seed));
  }
  Tensor logits(const std::string& of, const Args& options = {}) const {
    Tensor ids = Tensor::empty({17}, DType::kI32);
    for (int32_t i = 0; i < 17; ++i) ids.data<int32_t>()[i] = 7 * i;
    io::write_npy(path("ids.npy"), ids);
    const Finished f = krait(Args{"logits", of, "--ids", path("ids.npy"), "--out", path("l.npy")} + options);
    EXPECT_EQ(f.code, 0) << f.err;
    return io::read_npy(path("l.npy"));
  }
};

TEST_F(LoraProgram, MergedGivesWhatTheAdapterGives) {
  for (const std::string& name : tiny_names()) {
    const std::string m = model(name), a = adapter(m, 1);
    const Tensor with = logits(m, {"--lora", a});
    EXPECT_GT(relative_rms(with.f32(), logits(m).f32(), with.numel()), 1e-3);
    const std::string out = path(name + "-merged");
    const Finished f = krait({"lora", "merge", m, a, out});
    ASSERT_EQ(f.code, 0) << f.err;
    EXPECT_LT(relative_rms(with.f32(), logits(out).f32(), with.numel()), 2e-5);
    EXPECT_EQ(krait({"run", out, "-p", "x", "-n", "3"}).code, 0) << "the tokenizer came along";
    EXPECT_EQ(krait({"lora", "merge", m, a, out}).code, 2) << "nothing is overwritten";
  }
}

TEST_F(LoraProgram, CombinedGivesTheSum) {
  const std::string m = model("mamba2"), a = adapter(m, 1), b = adapter(m, 2);
  const Tensor want = logits(m, {"--lora", a + "=0.5", "--lora", b});
  const Finished f = krait({"lora", "combine", m, path("both"), a + "=0.5", b});
  ASSERT_EQ(f.code, 0) << f.err;
  EXPECT_LT(relative_rms(logits(m, {"--lora", path("both")}).f32(), want.f32(), want.numel()), 1e-6);
}

TEST_F(LoraProgram, KeepsItsPromises) {
  const std::string m = model("mamba2"), a = adapter(m, 1);
  const Finished verified = krait({"verify", m, "--lora", a});
  EXPECT_EQ(verified.code, 0) << verified.out << verified.err;
  const json shown = krait({"inspect", m, "--lora", a, "--json"}).parsed();
  EXPECT_EQ(shown["adapter"]["parts"].size(), 7u);
  EXPECT_NE(shown["fingerprint"], krait({"inspect", m, "--json"}).parsed()["fingerprint"]);
}

// A state that was read with an adapter goes on with it only.
TEST_F(LoraProgram, StatesAreNotSharedBetweenAdapters) {
  const std::string m = model("mamba2"), a = adapter(m, 1), s = path("s");
  ASSERT_EQ(krait({"run", m, "--lora", a, "-p", "once", "-n", "2", "--save-state", s}).code, 0);
  EXPECT_EQ(krait({"run", m, "--lora", a, "--load-state", s, "-n", "2"}).code, 0);
  for (const Args& other : {Args{}, Args{"--lora", a + "=0.5"}, Args{"--lora", adapter(m, 2)}}) {
    const Finished f = krait(Args{"run", m, "--load-state", s, "-n", "2"} + other);
    EXPECT_EQ(f.code, 3);
    EXPECT_THAT(f.err, HasSubstr("--lora"));
  }
}

TEST_F(LoraProgram, WhatCannotBeIsRefused) {
  const std::string m = model("mamba2"), a = adapter(m, 1);
  EXPECT_EQ(krait({"run", m, "--lora", path("none"), "-p", "x", "-n", "1"}).code, 1);
  EXPECT_EQ(krait({"run", m, "--lora", a + "=much", "-p", "x", "-n", "1"}).code, 2);
  const Finished other = krait({"run", model("mamba1"), "--lora", a, "-p", "x", "-n", "1"});
  EXPECT_EQ(other.code, 3);
  EXPECT_THAT(other.err, HasSubstr("does not fit the model"));
  ASSERT_EQ(krait({"quantize", m, path("q.gguf"), "--type", "Q8_0"}).code, 0);
  EXPECT_EQ(krait({"run", path("q.gguf"), "--lora", a, "-p", "x", "-n", "3"}).code, 0) << "a base in blocks";
  const Finished merged = krait({"lora", "merge", path("q.gguf"), a, path("out")});
  EXPECT_EQ(merged.code, 2);
  EXPECT_THAT(merged.err, HasSubstr("--dtype"));
}

}  // namespace
}  // namespace krait::test
