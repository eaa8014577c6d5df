#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "krait/backends/cpu/cpu_backend.h"
#include "krait/backends/cpu/kernel_testing.h"
#include "krait/core/half.h"
#include "krait/core/rng.h"
#include "krait/core/tensor.h"
#include "krait/kernels/reference/matmul.h"
#include "tests/tolerances.h"

namespace krait {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kBF16, DType::kF16};
constexpr Compute kComputes[] = {Compute::kF32, Compute::kBF16x2, Compute::kBF16};

// A weight as a checkpoint holds it, and packed for one kernel set.
struct Weight {
  Weight(DType type, int64_t rows, int64_t cols, uint64_t seed) : dtype(type), N(rows), K(cols) {
    Rng rng(seed);
    raw.resize(static_cast<size_t>(N * K * size_of(dtype)));
    for (int64_t i = 0; i < N * K; ++i) set(i, static_cast<float>(rng.normal()));
  }
  void set(int64_t i, float v) {
    const uint16_t half = dtype == DType::kBF16 ? f32_to_bf16(v) : f32_to_f16(v);
    const auto size = static_cast<size_t>(size_of(dtype));
    std::memcpy(raw.data() + static_cast<size_t>(i) * size,
                size == 4 ? static_cast<void*>(&v) : const_cast<uint16_t*>(&half), size);
  }
  // From an address that is aligned to one element only.
  Tensor pack(const KernelSet& set, ThreadPool& pool) const {
    return testing_util::pack_shifted(set, pool, raw, size_of(dtype) % 4, dtype, N, K);
  }
  DType dtype;
  int64_t N, K;
  std::vector<char> raw;
};

// y [M, ldy] with canaries where nothing may be written.
std::vector<float> run(const KernelSet& set, ThreadPool& pool, const Weight& w, const Tensor& packed, Compute compute,
                       const float* x, int64_t ldx, int64_t M, int64_t ldy, const float* bias) {
  return testing_util::run_matmul(set, pool, {x, ldx, packed.bytes(), w.dtype, compute, bias, nullptr, 0, M, w.N, w.K},
                                  ldy);
}

double norm(const float* x, int64_t n) {
  double s = 0;
  for (int64_t i = 0; i < n; ++i) s += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return std::sqrt(s);
}

void expect_matches(const KernelSet& set, ThreadPool& pool, DType dtype, Compute compute, int64_t M, int64_t N,
                    int64_t K) {
  SCOPED_TRACE(std::string(set.name) + " " + std::string(name_of(dtype)) + " compute " +
               std::to_string(static_cast<int>(compute)) + " M " + std::to_string(M) + " N " + std::to_string(N) +
               " K " + std::to_string(K));
  const Weight w(dtype, N, K, static_cast<uint64_t>(N * 1000 + K));
  const Tensor packed = w.pack(set, pool);
  const int64_t ldx = K + M % 3, ldy = N + K % 4;
  const std::vector<float> x = testing_util::normals(M * ldx, 7), bias = testing_util::normals(N, 8);
  const float* b = (N + K) % 2 == 0 ? bias.data() : nullptr;
  const std::vector<float> y = run(set, pool, w, packed, compute, x.data(), ldx, M, ldy, b);
  std::vector<double> norms;
  for (int64_t n = 0; n < N; ++n) {
    double s = 0;
    for (int64_t k = 0; k < K; ++k) s += std::pow(reference::weight_at<double>(w.raw.data(), dtype, n * K + k), 2);
    norms.push_back(std::sqrt(s));
  }
  const MatmulParams p{x.data(), ldx, w.raw.data(), dtype, compute, b, nullptr, 0, M, N, K};
  int wrong = 0;
  for (int64_t m = 0; m < M; ++m) {
    const double norm_x = norm(x.data() + m * ldx, K) * (1 + 0x1p-8);
    for (int64_t n = 0; n < N; ++n) {
      const double want = reference::matmul_element<double>(p, m, n);
      const double bound = tolerance::matmul(compute, K, norm_x, norms[static_cast<size_t>(n)], std::fabs(want));
      const double error = std::fabs(static_cast<double>(y[static_cast<size_t>(m * ldy + n)]) - want);
      if (!(error <= bound) && ++wrong < 4) ADD_FAILURE() << m << "," << n << ": error " << error << " bound " << bound;
    }
  }
  EXPECT_EQ(wrong, 0);
}

class MatmulTest : public testing::Test {
 protected:
  template <class F>
  void each(F f) {
    for (const KernelSet* set : cpu_kernel_sets()) {
      for (DType dtype : kDTypes) {
        for (Compute compute : kComputes) f(*set, dtype, compute);
      }
    }
  }
  ThreadPool pool_{2};
};

TEST_F(MatmulTest, MatchesReferenceAtEdgeSizes) {
  each([&](const KernelSet& set, DType dtype, Compute compute) {
    for (int64_t N = 1; N <= 70; N += N < 34 ? 1 : 5) {
      for (int64_t K = 1; K <= 70; K += K < 5 ? 1 : 7)
        expect_matches(set, pool_, dtype, compute, 1 + (N + K) % 14, N, K);
    }
  });
}

TEST_F(MatmulTest, MatchesReferenceAtLargerSizes) {
  each([&](const KernelSet& set, DType dtype, Compute compute) {
    expect_matches(set, pool_, dtype, compute, 1, 300, 1030);
    expect_matches(set, pool_, dtype, compute, 25, 150, 777);  // several blocks of K, the last one odd
    expect_matches(set, pool_, dtype, compute, 390, 33, 258);  // several chunks of rows
  });
}

// The exactness contract: a row's bits do not depend on the rows beside it, the stride, or the threads.
TEST_F(MatmulTest, RowsAreInvariant) {
  ThreadPool one(1), three(3);
  ThreadPool* pools[] = {&one, &pool_, &three};
  Rng rng(5);
  each([&](const KernelSet& set, DType dtype, Compute compute) {
    const auto N = static_cast<int64_t>(1 + rng.below(300)), K = static_cast<int64_t>(1 + rng.below(600));
    SCOPED_TRACE(std::string(set.name) + " N " + std::to_string(N) + " K " + std::to_string(K));
    const Weight w(dtype, N, K, 3);
    const Tensor packed = w.pack(set, pool_);
    constexpr int64_t kRows = 40;
    const std::vector<float> x = testing_util::normals(kRows * K, 4), bias = testing_util::normals(N, 5);
    const std::vector<float> all = run(set, one, w, packed, compute, x.data(), K, kRows, N, bias.data());
    for (int64_t M = 1; M <= kRows; ++M) {
      const auto first = static_cast<int64_t>(rng.below(static_cast<uint64_t>(kRows - M + 1)));
      const int64_t ldy = N + static_cast<int64_t>(rng.below(3));
      const std::vector<float> y =
          run(set, *pools[M % 3], w, packed, compute, x.data() + first * K, K, M, ldy, bias.data());
      for (int64_t m = 0; m < M; ++m) {
        ASSERT_EQ(0, std::memcmp(&y[static_cast<size_t>(m * ldy)], &all[static_cast<size_t>((first + m) * N)],
                                 static_cast<size_t>(N) * 4))
            << "M " << M << " row " << m;
      }
    }
    // Every second row, by way of the stride.
    const std::vector<float> y = run(set, three, w, packed, compute, x.data(), 2 * K, kRows / 2, N, bias.data());
    for (int64_t m = 0; m < kRows / 2; ++m) {
      ASSERT_EQ(0, std::memcmp(&y[static_cast<size_t>(m * N)], &all[static_cast<size_t>(2 * m * N)],
                               static_cast<size_t>(N) * 4));
    }
  });
}

// Rows of a batch larger than one packed chunk, and columns of a weight cut out of a larger one.
TEST_F(MatmulTest, RowsAndColumnsAreInvariantAtLargerSizes) {
  each([&](const KernelSet& set, DType dtype, Compute compute) {
    if (std::strcmp(set.name, "cpu-scalar") == 0) return;
    constexpr int64_t M = 801, N = 200, K = 515, kCols = 37;
    const Weight w(dtype, N, K, 3);
    const Tensor packed = w.pack(set, pool_);
    const std::vector<float> x = testing_util::normals(M * K, 4);
    const std::vector<float> all = run(set, pool_, w, packed, compute, x.data(), K, M, N, nullptr);
    for (int64_t m : {int64_t{0}, int64_t{383}, int64_t{384}, int64_t{800}}) {
      const std::vector<float> y = run(set, pool_, w, packed, compute, x.data() + m * K, K, 1, N, nullptr);
      ASSERT_EQ(0, std::memcmp(y.data(), &all[static_cast<size_t>(m * N)], N * 4)) << set.name << " row " << m;
    }
    Weight part(dtype, kCols, K, 3);
    std::memcpy(part.raw.data(), w.raw.data() + 60 * K * size_of(dtype), part.raw.size());
    const std::vector<float> y = run(set, pool_, part, part.pack(set, pool_), compute, x.data(), K, 5, kCols, nullptr);
    for (int64_t m = 0; m < 5; ++m) {
      ASSERT_EQ(0, std::memcmp(&y[static_cast<size_t>(m * kCols)], &all[static_cast<size_t>(m * N + 60)], kCols * 4));
    }
  });
}

TEST_F(MatmulTest, NoRowsIsNoWork) {
  each([&](const KernelSet& set, DType dtype, Compute compute) {
    const Weight w(dtype, 20, 30, 1);
    run(set, pool_, w, w.pack(set, pool_), compute, nullptr, 30, 0, 20, nullptr);
  });
}

// Infinity and NaN of an activation reach the outputs of their row as in f32, and no other row.
TEST_F(MatmulTest, InfinityAndNaNStayInTheirRow) {
  each([&](const KernelSet& set, DType dtype, Compute compute) {
    SCOPED_TRACE(set.name);
    constexpr int64_t M = 13, N = 19, K = 45;
    const Weight w(dtype, N, K, 1);
    const Tensor packed = w.pack(set, pool_);
    std::vector<float> x = testing_util::normals(M * K, 2);
    const std::vector<float> clean = run(set, pool_, w, packed, compute, x.data(), K, M, N, nullptr);
    x[3 * K + 44] = std::numeric_limits<float>::infinity();
    x[7 * K + 2] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> y = run(set, pool_, w, packed, compute, x.data(), K, M, N, nullptr);
    for (int64_t m = 0; m < M; ++m) {
      for (int64_t n = 0; n < N; ++n) {
        const float v = y[static_cast<size_t>(m * N + n)];
        if (m == 7) {
          EXPECT_TRUE(std::isnan(v));
        } else if (m == 3) {
          const double w_n = reference::weight_at<double>(w.raw.data(), dtype, n * K + 44);
          EXPECT_EQ(v, w_n > 0 ? std::numeric_limits<float>::infinity() : -std::numeric_limits<float>::infinity());
        } else {
          EXPECT_EQ(v, clean[static_cast<size_t>(m * N + n)]);
        }
      }
    }
  });
}

// The largest finite f32 would round to an infinite bf16; the split form must keep it finite.
TEST_F(MatmulTest, LargestActivationStaysFinite) {
  const float big = std::numeric_limits<float>::max();
  for (const KernelSet* set : cpu_kernel_sets()) {
    for (DType dtype : kDTypes) {
      for (Compute compute : {Compute::kF32, Compute::kBF16x2}) {
        Weight w(dtype, 1, 1, 1);
        w.set(0, 0.5f);
        const std::vector<float> y = run(*set, pool_, w, w.pack(*set, pool_), compute, &big, 1, 1, 1, nullptr);
        EXPECT_NEAR(y[0] / (0.5f * big), 1.0f, 1e-5f) << set->name;
      }
    }
  }
}

// f32 products keep subnormal numbers; the bf16 dot instructions may flush them to zero, nothing else.
TEST_F(MatmulTest, SubnormalNumbers) {
  const float tiny = 0x1p-130f;
  each([&](const KernelSet& set, DType dtype, Compute compute) {
    Weight w(dtype, 1, 2, 1);
    w.set(0, 1.0f);
    w.set(1, 0.0f);
    const float x[] = {tiny, 1.0f};
    const std::vector<float> y = run(set, pool_, w, w.pack(set, pool_), compute, x, 2, 1, 1, nullptr);
    const bool may_flush = compute != Compute::kF32 && dtype == DType::kBF16;
    EXPECT_TRUE(y[0] == tiny || (may_flush && y[0] == 0.0f)) << set.name << " " << y[0];
  });
}

TEST_F(MatmulTest, PackingTellsOfValuesThatAreNotFinite) {
  each([&](const KernelSet& set, DType dtype, Compute) {
    const auto is_finite = [&](int64_t at, float v) {
      Weight w(dtype, 21, 33, 1);
      w.set(at, v);
      Tensor packed = Tensor::empty({static_cast<int64_t>(set.packed_weight_bytes(dtype, w.N, w.K))}, DType::kU8);
      bool not_finite = false;
      set.pack_weight({&pool_}, {w.raw.data(), dtype, w.N, w.K, packed.bytes(), &not_finite});
      return !not_finite;
    };
    const float infinity = std::numeric_limits<float>::infinity();
    for (const int64_t at : {0, 5 * 33 + 32, 21 * 33 - 1}) {
      for (const float v : {infinity, -infinity, std::nanf("")}) EXPECT_FALSE(is_finite(at, v)) << at << " " << v;
      for (const float v : {65504.0f, -65504.0f, 0.0f}) EXPECT_TRUE(is_finite(at, v)) << at << " " << v;
    }
  });
}

TEST_F(MatmulTest, ZeroActivationsGiveTheBias) {
  each([&](const KernelSet& set, DType dtype, Compute compute) {
    const Weight w(dtype, 21, 33, 1);
    const std::vector<float> x(3 * 33, 0.0f), bias = testing_util::normals(21, 6);
    const std::vector<float> y = run(set, pool_, w, w.pack(set, pool_), compute, x.data(), 33, 3, 21, bias.data());
    for (size_t i = 0; i < 63; ++i) EXPECT_EQ(y[i], bias[i % 21]);
  });
}

}  // namespace
}  // namespace krait
