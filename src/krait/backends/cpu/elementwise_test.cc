#include "krait/kernels/reference/elementwise.h"

#include "krait/backends/cpu/kernel_testing.h"
#include "krait/core/half.h"

namespace krait {
namespace {

using namespace testing_util;

constexpr int64_t kSizes[] = {1, 7, 8, 9, 16, 31, 33, 768};

class Elementwise : public testing::TestWithParam<const KernelSet*> {
 protected:
  ThreadPool pool_{2};
};

TEST_P(Elementwise, SiluGateMatchesReference) {
  for (const int64_t D : kSizes) {
    const Rows a = Rows::random(5, D, 2, 1), gate = Rows::random(5, D, 3, 2, 30);
    Rows out(5, D, 1);
    const SiluGateParams p{a.row(0), a.ld, gate.row(0), gate.ld, out.row(0), out.ld, 5, D};
    GetParam()->silu_gate({&pool_}, p);
    out.expect_gaps_untouched();
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t d = 0; d < D; ++d) {
        const double want = reference::silu_gate_at<double>(p, t, d), a_abs = std::fabs(a.row(t)[d]);
        expect_near(out.row(t)[d], want, (1 + a_abs) * tolerance::silu(0) + 1.2 * tolerance::silu(std::fabs(want)),
                    "row " + std::to_string(t) + " column " + std::to_string(d));
      }
    }
  }
}

TEST_P(Elementwise, SiluGateInPlace) {
  for (const int64_t D : kSizes) {
    Rows a = Rows::random(5, D, 1, 1), out(5, D, 1);
    const Rows gate = Rows::random(5, D, 1, 2);
    GetParam()->silu_gate({&pool_}, {a.row(0), a.ld, gate.row(0), gate.ld, out.row(0), out.ld, 5, D});
    GetParam()->silu_gate({&pool_}, {a.row(0), a.ld, gate.row(0), gate.ld, a.row(0), a.ld, 5, D});
    EXPECT_EQ(a.data, out.data);
  }
}

// Where an element sits, in a whole vector or a tail, and the threads do not show.
TEST_P(Elementwise, SiluGateIsExact) {
  const Rows a = Rows::random(300, 70, 0, 1), gate = Rows::random(300, 70, 0, 2, 3);
  std::vector<float> want(300 * 70), out(want.size());
  for (int64_t i = 0; i < 300 * 70; ++i) {
    GetParam()->silu_gate({&pool_}, {a.row(0) + i, 1, gate.row(0) + i, 1, want.data() + i, 1, 1, 1});
  }
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    GetParam()->silu_gate({&pool}, {a.row(0), 70, gate.row(0), 70, out.data(), 70, 300, 70});
    EXPECT_EQ(out, want);
  }
}

TEST_P(Elementwise, AddIsExact) {
  for (const int64_t D : kSizes) {
    const Rows x = Rows::random(5, D, 2, 1);
    Rows y = Rows::random(5, D, 3, 2);
    const Rows before = y;
    GetParam()->add({&pool_}, {x.row(0), x.ld, y.row(0), y.ld, 5, D});
    y.expect_gaps_untouched();
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t d = 0; d < D; ++d) EXPECT_EQ(y.row(t)[d], before.row(t)[d] + x.row(t)[d]);
    }
  }
}

TEST_P(Elementwise, EmbedWidensExactly) {
  const std::vector<int32_t> ids = {4, 0, 4, 2};
  for (const int64_t D : kSizes) {
    const std::vector<float> f32 = normals(5 * D, 3);
    std::vector<uint16_t> bf16, f16;
    for (const float f : f32) bf16.push_back(f32_to_bf16(f)), f16.push_back(f32_to_f16(f));
    std::vector<float> y(static_cast<size_t>(4 * D));
    const auto expect = [&](DType dtype, const void* table, auto value) {
      GetParam()->embed({&pool_}, {table, dtype, ids.data(), y.data(), 4, D});
      for (int64_t i = 0; i < 4 * D; ++i) {
        const auto from = static_cast<size_t>(ids[static_cast<size_t>(i / D)] * D + i % D);
        ASSERT_EQ(y[static_cast<size_t>(i)], value(from)) << name_of(dtype) << " D " << D << " element " << i;
      }
    };
    expect(DType::kF32, f32.data(), [&](size_t i) { return f32[i]; });
    expect(DType::kBF16, bf16.data(), [&](size_t i) { return bf16_to_f32(bf16[i]); });
    expect(DType::kF16, f16.data(), [&](size_t i) { return f16_to_f32(f16[i]); });
  }
}

// Row numbers times widths beyond 2^31 elements.
TEST_P(Elementwise, TrapB1_EmbedOffsetsBeyond32Bits) {
  constexpr int64_t D = 40000, kRow = 60000;
  const HugeFloats table(D * (kRow + 1));
  if (table.data == nullptr) GTEST_SKIP() << "no address space for 10 GB";
  const std::vector<float> row = normals(D, 4);
  std::copy_n(row.data(), D, table.data + kRow * D);
  const int32_t id = kRow;
  std::vector<float> y(D);
  GetParam()->embed({&pool_}, {table.data, DType::kF32, &id, y.data(), 1, D});
  EXPECT_EQ(y, row);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Elementwise, testing::ValuesIn(cpu_kernel_sets()), set_name);

}  // namespace
}  // namespace krait
