// The contract every mixer keeps, on every kernel set: bits do not depend on how a sequence is split into calls, on
// what else is in the batch, on the slot, or on the number of threads (design.md §1.3; traps A2-A6, A10, A12, B12).
#include <algorithm>
#include <cstring>
#include <map>

#include "krait/core/rng.h"
#include "krait/mixers/registry.h"
#include "tests/test_models.h"

namespace krait::test {
namespace {

constexpr int64_t kWidth = 24;   // d_model
constexpr int64_t kLength = 19;  // tokens of the sequence under test

// Random parameters for one mixer, drawn around its own initialisation so that every term matters.
class RandomParams final : public ParamSource {
 public:
  RandomParams(const std::vector<ParamSpec>& specs, const Runtime& rt) : runtime_(rt) {
    uint64_t stream = 0;
    for (const ParamSpec& p : specs) {
      Tensor t = Tensor::empty(p.shape);
      Rng rng(11, stream++);
      for (int64_t i = 0; i < t.numel(); ++i) {
        const double base = p.init.kind == Init::Kind::kConstant ? p.init.a : 0;
        t.f32()[i] = static_cast<float>(base + (p.role == ParamRole::kMatmul ? 0.2 : 0.5) * rng.normal());
      }
      tensors_[p.name] = t;
    }
  }
  bool has(const std::string& name) const override { return tensors_.contains(name); }
  Tensor f32(const std::string& name) const override { return tensors_.at(name); }
  Tensor neg_exp(const std::string& name) const override {
    Tensor t = tensors_.at(name).clone();
    for (int64_t i = 0; i < t.numel(); ++i) t.f32()[i] = -std::exp(t.f32()[i]);
    return t;
  }
  Weight matmul(const std::string& name) const override { return {runtime_, tensors_.at(name)}; }

 private:
  std::map<std::string, Tensor> tensors_;
  const Runtime& runtime_;
};

struct Case {
  const MixerInfo* info;
  MixerConfig config;
  const KernelSet* kernels;
};

Tensor random_rows(int64_t T, uint64_t seed) {
  Tensor x = Tensor::empty({T, kWidth});
  Rng rng(seed);
  for (int64_t i = 0; i < x.numel(); ++i) x.f32()[i] = static_cast<float>(rng.normal());
  return x;
}

class Contract : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override { build(*GetParam().kernels); }

  void build(const KernelSet& kernels) {
    runtime_ = runtime(kernels);
    const RandomParams params(GetParam().info->params(GetParam().config, kWidth), runtime_);
    mixer_ = GetParam().info->make(GetParam().config, kWidth, params);
    x_ = random_rows(kLength, 5);
    states_ = SlotStore({mixer_->state_spec()}, 8);
    for (int64_t s = 0; s < 8; ++s) mixer_->reset_state(states_.block(0), s);
  }

  Tensor forward(const Tensor& x, const SeqSpans& spans, SlotStore& states) const {
    ForwardContext ctx{runtime_, spans};
    return mixer_->forward(ctx, x, states.block(0));
  }
  // One call over the whole sequence in slot 0.
  Tensor whole() {
    mixer_->reset_state(states_.block(0), 0);
    return forward(x_, SeqSpans::one(kLength, 0), states_);
  }
  void expect_same_state(int64_t a, const SlotStore& other, int64_t b, const char* what) const {
    const StateSpec spec = mixer_->state_spec();
    for (size_t t = 0; t < spec.size(); ++t) {
      const Tensor u = states_.at(0, t, a), v = other.at(0, t, b);
      EXPECT_EQ(std::memcmp(u.bytes(), v.bytes(), static_cast<size_t>(u.nbytes())), 0)
          << what << ", state " << spec[t].name;
    }
  }

  Runtime runtime_;
  std::unique_ptr<Mixer> mixer_;
  Tensor x_;
  SlotStore states_;
};

void expect_same_rows(const Tensor& got, int64_t row, const Tensor& want, int64_t want_row, int64_t n,
                      const char* what) {
  const auto bytes = static_cast<size_t>(n * kWidth) * sizeof(float);
  EXPECT_EQ(std::memcmp(got.f32() + row * kWidth, want.f32() + want_row * kWidth, bytes), 0) << what;
}

TEST_P(Contract, TrapA2_SplitAtEveryPosition) {
  const Tensor want = whole();
  SlotStore split({mixer_->state_spec()}, 1);
  for (int64_t at = 0; at <= kLength; ++at) {
    mixer_->reset_state(split.block(0), 0);
    const Tensor a = forward(x_.narrow(0, 0, at), SeqSpans::one(at, 0), split);
    const Tensor b = forward(x_.narrow(0, at, kLength - at), SeqSpans::one(kLength - at, 0), split);
    expect_same_rows(a, 0, want, 0, at, "first part");
    expect_same_rows(b, 0, want, at, kLength - at, "second part");
    expect_same_state(0, split, 0, "after a split");
  }
}

TEST_P(Contract, TrapA3_ChunksOfAnyLength) {
  const Tensor want = whole();
  SlotStore chunked({mixer_->state_spec()}, 1);
  for (const int64_t length : {2, 3, 4, 5, 7, 16}) {  // around the taps of the convolution, and beyond
    mixer_->reset_state(chunked.block(0), 0);
    for (int64_t at = 0; at < kLength; at += length) {
      const int64_t n = std::min(length, kLength - at);
      expect_same_rows(forward(x_.narrow(0, at, n), SeqSpans::one(n, 0), chunked), 0, want, at, n, "chunk");
    }
    expect_same_state(0, chunked, 0, "after chunks");
  }
}

TEST_P(Contract, TrapA8_TheInitialStateIsRead) {
  if (mixer_->state_spec().empty()) GTEST_SKIP() << "keeps no state";
  constexpr int64_t kHalf = kLength / 2;
  SlotStore slots({mixer_->state_spec()}, 2);
  for (int64_t s = 0; s < 2; ++s) mixer_->reset_state(slots.block(0), s);
  forward(x_.narrow(0, 0, kHalf), SeqSpans::one(kHalf, 0), slots);
  const Tensor warm = forward(x_.narrow(0, kHalf, 1), SeqSpans::one(1, 0), slots);
  const Tensor cold = forward(x_.narrow(0, kHalf, 1), SeqSpans::one(1, 1), slots);
  EXPECT_NE(std::memcmp(warm.f32(), cold.f32(), kWidth * sizeof(float)), 0);
}

TEST_P(Contract, TrapB7_TenthCallEqualsTheFirst) {
  const Tensor want = whole();
  for (int i = 1; i < 10; ++i) expect_same_rows(whole(), 0, want, 0, kLength, "again");
}

TEST_P(Contract, TrapA4_StepEqualsForward) {
  const Tensor want = whole();
  SlotStore step({mixer_->state_spec()}, 1);
  mixer_->reset_state(step.block(0), 0);
  for (int64_t t = 0; t < kLength; ++t) {
    expect_same_rows(forward(x_.narrow(0, t, 1), SeqSpans::one(1, 0), step), 0, want, t, 1, "step");
  }
  expect_same_state(0, step, 0, "after steps");
}

TEST_P(Contract, TrapA6_PackedWithStrangers) {
  const Tensor want = whole();
  // Strangers of lengths 0, 1, 2, 3 around the sequence, in scattered slots.
  const std::vector<std::pair<int64_t, int32_t>> parts = {{2, 5}, {0, 1}, {kLength, 3}, {1, 7}, {3, 2}};
  SeqSpans spans;
  Tensor x = Tensor::empty({kLength + 6, kWidth});
  int64_t at = 0, mine = 0;
  for (const auto& [n, slot] : parts) {
    const Tensor rows = n == kLength ? x_ : random_rows(n, 90 + static_cast<uint64_t>(slot));
    std::copy_n(rows.f32(), n * kWidth, x.f32() + at * kWidth);
    if (n == kLength) mine = at;
    spans.add(n, slot);
    at += n;
  }
  SlotStore packed({mixer_->state_spec()}, 8);
  for (int64_t s = 0; s < 8; ++s) mixer_->reset_state(packed.block(0), s);
  expect_same_rows(forward(x, spans, packed), mine, want, 0, kLength, "packed");
  expect_same_state(0, packed, 3, "packed");
  expect_same_state(4, packed, 1, "empty sequence: untouched");
  expect_same_state(4, packed, 6, "absent slot: untouched");
}

TEST_P(Contract, ThreadsDoNotChangeBits) {
  const Tensor want = whole();
  for (const int n : {1, 2, 3}) {
    ThreadPool threads(n);
    runtime_.pool = &threads;
    expect_same_rows(whole(), 0, want, 0, kLength, "threads");
  }
}

TEST_P(Contract, AgreesWithTheScalarDefinition) {
  const Tensor got = whole();
  build(*cpu_kernels("cpu-scalar"));
  const Tensor want = whole();
  EXPECT_LT(relative_rms(got.f32(), want.f32(), got.numel()), 2e-6);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const KernelSet* k : cpu_kernel_sets())
    for (const MixerInfo* m : all_mixers())
      for (const MixerConfig& c : m->examples()) all.push_back({m, c, k});
  return all;
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  std::string name =
      std::string(info.param.info->name) + "_" + info.param.kernels->name + "_" + std::to_string(info.index);
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Mixers, Contract, testing::ValuesIn(cases()), case_name);

}  // namespace
}  // namespace krait::test
