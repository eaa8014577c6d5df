// Whole models against float64 reference outputs: tiny models of every architecture and three trained ones.
#include <numbers>

#include "krait/io/npy.h"
#include "tests/test_models.h"

namespace krait::test {
namespace {

using Npz = std::map<std::string, Tensor>;

std::span<const int32_t> row(const Tensor& ids, int64_t b) {
  return {ids.data<int32_t>() + b * ids.dim(-1), static_cast<size_t>(ids.dim(-1))};
}

// kernel layout [.., A, B] -> [.., B, A] of the references
std::vector<float> swap_last(const Tensor& t) {
  const int64_t A = t.dim(-2), B = t.dim(-1), outer = t.numel() / (A * B);
  std::vector<float> out(static_cast<size_t>(t.numel()));
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t i = 0; i < A; ++i)
      for (int64_t j = 0; j < B; ++j) out[static_cast<size_t>((o * B + j) * A + i)] = t.f32()[(o * A + i) * B + j];
  return out;
}

// Largest distance on the circle, in radians, between phases (2^32 = one turn) and reference angles.
double angle_error(const Tensor& phase, const float* theta) {
  double worst = 0;
  for (int64_t i = 0; i < phase.numel(); ++i) {
    const double a = static_cast<double>(phase.data<int32_t>()[i]) * 0x1p-32 * 2 * std::numbers::pi;
    worst = std::max(worst, std::abs(std::remainder(a - static_cast<double>(theta[i]), 2 * std::numbers::pi)));
  }
  return worst;
}

void expect_mamba3_state(const SlotStore& s, size_t block, const Npz& g, const std::string& prefix, int64_t sequence) {
  const auto part = [&](const char* name) {
    const Tensor& t = g.at(prefix + name);
    return t.f32() + sequence * (t.numel() / t.dim(0));
  };
  // Every step of an angle errs relative to its size, so that the error grows with the way gone (up to 63 rad here).
  double furthest = 0;
  for (int64_t i = 0; i < s.at(block, 0, 0).numel(); ++i) {
    furthest = std::max(furthest, std::abs(static_cast<double>(part("theta")[i])));
  }
  const double turned = angle_error(s.at(block, 0, 0), part("theta"));
  EXPECT_LT(turned, 1e-6 * (10 + furthest));
  // S is made of keys, which are turned by these angles.
  const std::vector<float> S = swap_last(s.at(block, 1, 0));
  EXPECT_LT(relative_rms(S.data(), part("S"), static_cast<int64_t>(S.size())), 1e-5 + turned);
  EXPECT_LT(relative_rms(s.at(block, 2, 0).f32(), part("k"), s.at(block, 2, 0).numel()), 1e-5 + turned);
  EXPECT_LT(relative_rms(s.at(block, 3, 0).f32(), part("x"), s.at(block, 3, 0).numel()), 1e-5);
}

class Tiny : public testing::TestWithParam<const char*> {};

// Traps J1, J4: every generation generates.
TEST_P(Tiny, TrapsJ1J4_LogitsGreedyAndStates) {
  const fs::path folder = shared("data/tiny") / GetParam();
  KRAIT_NEEDS_SHARED(folder);
  const LoadedModel loaded = load_model(folder, runtime());
  const Model& m = *loaded.model;
  const Npz g = io::read_npz(folder / "golden.npz");
  const Tensor& ids = g.at("ids");
  const Tensor& want = g.at("logits");
  SlotStore states(m.state_specs(), 1);
  double worst = 0;
  for (int64_t b = 0; b < ids.dim(0); ++b) {
    const Tensor got = all_logits(m, row(ids, b), states);
    ASSERT_EQ(got.dim(1), want.dim(2));
    worst = std::max(worst, relative_rms(got.f32(), want.f32() + b * got.numel(), got.numel()));
    if (g.contains("state_layer0_theta")) {
      const size_t per_layer = m.spec().blocks.size() / static_cast<size_t>(m.spec().n_layer);
      for (int64_t i = 0; i < m.spec().n_layer; ++i) {
        expect_mamba3_state(states, static_cast<size_t>(i) * per_layer, g, "state_layer" + std::to_string(i) + "_", b);
      }
    }
  }
  std::printf("tiny/%-20s relative RMS %.2e\n", GetParam(), worst);
  EXPECT_LE(worst, 1e-5);
  const Tensor& expected = g.at("greedy");
  EXPECT_EQ(greedy(m, row(ids, 0).first(16), expected.dim(0)),
            std::vector<int32_t>(expected.data<int32_t>(), expected.data<int32_t>() + expected.dim(0)));
}

INSTANTIATE_TEST_SUITE_P(Models, Tiny,
                         testing::Values("mamba", "mamba-bias-k3-d8", "mamba-d20", "mamba2", "mamba2-g4",
                                         "mamba2-limit", "mamba3_siso", "mamba3_siso_norm", "mamba3_mimo",
                                         "mamba3_mimo_norm", "falcon_mamba", "falcon_mamba-k3"));

class Books : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    folder_ = shared("data/models") / GetParam();
    KRAIT_NEEDS_SHARED(folder_);
    loaded_ = load_model(folder_, runtime());
    golden_ = io::read_npz(folder_ / "golden.npz");
  }
  const Model& model() const { return *loaded_.model; }
  const Tensor& golden(const std::string& name, int i) const { return golden_.at(name + "_" + std::to_string(i)); }

  fs::path folder_;
  LoadedModel loaded_;
  Npz golden_;
};

TEST_P(Books, LogitsArgmaxAndLse) {
  for (int i = 0; i < 3; ++i) {
    const Tensor& ids = golden("ids", i);
    const Tensor got = all_logits(model(), row(ids, 0));
    const Tensor& want = golden("logits", i);  // all rows for i = 0, else the last 4
    const int64_t L = ids.dim(0), V = got.dim(1), first = L - want.dim(0);
    const double rms = relative_rms(got.f32() + first * V, want.data<double>(), want.numel());
    double lse_error = 0;
    int64_t argmax_hits = 0;
    for (int64_t t = 0; t < L; ++t) {
      const std::span r(got.f32() + t * V, static_cast<size_t>(V));
      argmax_hits += std::max_element(r.begin(), r.end()) - r.begin() == golden("argmax", i).data<int32_t>()[t];
      const double lse = negative_log_likelihood(r, 0) + static_cast<double>(r[0]);
      lse_error = std::max(lse_error, std::abs(lse - golden("lse", i).data<double>()[t]));
    }
    std::printf("%s, %4lld ids: logits relative RMS %.2e, argmax %lld/%lld, logsumexp error %.1e\n", GetParam(),
                static_cast<long long>(L), rms, static_cast<long long>(argmax_hits), static_cast<long long>(L),
                lse_error);
    EXPECT_LE(rms, 1e-5);
    EXPECT_EQ(argmax_hits, L);
    EXPECT_LE(lse_error, 1e-4);
  }
}

TEST_P(Books, GreedyIsIdentical) {
  for (int j = 0; j < 3; ++j) {
    const Tensor& prompt = golden("gen_prompt", j);
    const Tensor& want = golden("gen_out", j);
    std::vector<int32_t> got(row(prompt, 0).begin(), row(prompt, 0).end());
    const auto more = greedy(model(), row(prompt, 0), want.dim(0) - prompt.dim(0));
    got.insert(got.end(), more.begin(), more.end());
    EXPECT_EQ(got, std::vector<int32_t>(row(want, 0).begin(), row(want, 0).end()));
  }
}

TEST_P(Books, FinalStates) {
  SlotStore states(model().state_specs(), 1);
  all_logits(model(), row(golden("ids", 1), 0), states);
  const int64_t n_layer = model().spec().n_layer;
  const size_t per_layer = model().spec().blocks.size() / static_cast<size_t>(n_layer);
  double worst = 0;
  for (int64_t i = 0; i < n_layer; ++i) {
    const size_t block = static_cast<size_t>(i) * per_layer;
    const auto want = [&](const char* name) {
      const Tensor& t = golden_.at(std::string("state1_") + name);
      return t.f32() + i * (t.numel() / t.dim(0));
    };
    if (golden_.contains("state1_theta")) {
      EXPECT_LT(angle_error(states.at(block, 0, 0), want("theta")), 5e-5);
      const std::vector<float> S = swap_last(states.at(block, 1, 0));
      worst = std::max(worst, relative_rms(S.data(), want("S"), static_cast<int64_t>(S.size())));
      worst = std::max(worst, relative_rms(states.at(block, 2, 0).f32(), want("k"), states.at(block, 2, 0).numel()));
      worst = std::max(worst, relative_rms(states.at(block, 3, 0).f32(), want("x"), states.at(block, 3, 0).numel()));
      continue;
    }
    const std::vector<float> ssm = swap_last(states.at(block, 1, 0));
    worst = std::max(worst, relative_rms(ssm.data(), want("ssm"), static_cast<int64_t>(ssm.size())));
    const Tensor conv = states.at(block, 0, 0);  // [W−1, C]; the reference keeps W columns [C, W]
    const int64_t W = conv.dim(0) + 1, C = conv.dim(1);
    std::vector<float> tail;
    for (int64_t k = 0; k < W - 1; ++k)
      for (int64_t c = 0; c < C; ++c) tail.push_back(want("conv")[c * W + k + 1]);
    worst = std::max(worst, relative_rms(conv.f32(), tail.data(), conv.numel()));
  }
  std::printf("%s: final states relative RMS at most %.2e\n", GetParam(), worst);
  EXPECT_LT(worst, 2e-5);
}

INSTANTIATE_TEST_SUITE_P(Models, Books, testing::Values("mamba1-books-12m", "mamba2-books-12m", "mamba3-books-12m"));

}  // namespace
}  // namespace krait::test
