#include "krait/backends/cpu/kernel_testing.h"
#include "krait/kernels/reference/elementwise.h"

namespace krait {
namespace {

using namespace testing_util;

class ElementwiseGrad : public testing::TestWithParam<const KernelSet*> {
 protected:
  ThreadPool pool_{2};
};

TEST_P(ElementwiseGrad, SiluGateMatchesReference) {
  for (const int64_t D : {1, 7, 8, 9, 16, 31, 33, 768}) {
    const Rows a = Rows::random(5, D, 2, 1), gate = Rows::random(5, D, 3, 2, 30), dout = Rows::random(5, D, 1, 3);
    Rows da = Rows::random(5, D, 4, 4), dgate = Rows::random(5, D, 5, 5);
    std::vector<double> want_a = widened(da.data), want_gate = widened(dgate.data);
    const std::vector<double> a64 = widened(a.data), gate64 = widened(gate.data), dout64 = widened(dout.data);
    const SiluGateGradParamsOf<double> o{{a64.data(), a.ld, gate64.data(), gate.ld, nullptr, 0, 5, D},
                                         dout64.data(),
                                         dout.ld,
                                         want_a.data(),
                                         da.ld,
                                         want_gate.data(),
                                         dgate.ld};
    GetParam()->silu_gate_grad({&pool_}, {{a.row(0), a.ld, gate.row(0), gate.ld, nullptr, 0, 5, D},
                                          dout.row(0),
                                          dout.ld,
                                          da.row(0),
                                          da.ld,
                                          dgate.row(0),
                                          dgate.ld});
    da.expect_gaps_untouched();
    dgate.expect_gaps_untouched();
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t d = 0; d < D; ++d) {
        reference::silu_gate_grad_at(o, t, d);
        const std::string where =
            "D " + std::to_string(D) + " row " + std::to_string(t) + " column " + std::to_string(d);
        const double u = tolerance::kF32Unit, g = std::fabs(dout.row(t)[d]), z = gate.row(t)[d];
        const double want = o.da[t * da.ld + d], silu = std::fabs(reference::silu(z));
        expect_near(da.row(t)[d], want, g * (tolerance::silu(silu) + 3 * u * silu) + u * std::fabs(want), where);
        const double want_g = o.dgate[t * dgate.ld + d], by = g * std::fabs(a.row(t)[d]);
        const double slope = std::fabs(reference::silu_derivative(z));
        expect_near(dgate.row(t)[d], want_g, by * (tolerance::silu_slope(z) + 3 * u * slope) + u * std::fabs(want_g),
                    where);
      }
    }
  }
}

// Ids that repeat: sums in the order of the tokens, to the bit, whatever the threads.
TEST_P(ElementwiseGrad, TrapB9_EmbedAddsInOrder) {
  for (const int64_t D : {1, 15, 16, 40, 300}) {
    constexpr int64_t T = 200, V = 9;
    const Rows dy = Rows::random(T, D, 3, 1);
    std::vector<int32_t> ids;
    for (int64_t t = 0; t < T; ++t) ids.push_back(static_cast<int32_t>(t * t % 7));
    std::vector<float> want = normals(V * D, 2);
    const std::vector<float> stored = want;
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t d = 0; d < D; ++d) want[static_cast<size_t>(ids[static_cast<size_t>(t)] * D + d)] += dy.row(t)[d];
    }
    for (const int threads : {1, 2, 3}) {
      ThreadPool pool(threads);
      std::vector<float> got = stored;
      GetParam()->embed_grad({&pool}, {ids.data(), dy.row(0), dy.ld, got.data(), T, D});
      EXPECT_EQ(got, want) << D << " columns, " << threads << " threads";
    }
  }
}

TEST_P(ElementwiseGrad, TrapB1_EmbedOffsetsBeyond32Bits) {
  constexpr int64_t D = 40000, kRow = 60000;
  const HugeFloats table(D * (kRow + 1));
  if (table.data == nullptr) GTEST_SKIP() << "no address space for 10 GB";
  const std::vector<float> dy = normals(D, 4);
  const int32_t id = kRow;
  GetParam()->embed_grad({&pool_}, {&id, dy.data(), D, table.data, 1, D});
  EXPECT_TRUE(same_bits(table.data + kRow * D, dy.data(), D));
}

INSTANTIATE_TEST_SUITE_P(Kernels, ElementwiseGrad, testing::ValuesIn(cpu_kernel_sets()), set_name);

}  // namespace
}  // namespace krait
