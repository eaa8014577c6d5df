// The matmul with block types: every kernel set against the definition, bit by bit, and against exact values.
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
#include "krait/kernels/reference/block_matmul.h"
#include "tests/tolerances.h"

namespace krait {
namespace {

#define KRAIT_NAME(name) DType::k##name,
constexpr DType kTypes[] = {KRAIT_BLOCK_TYPES(KRAIT_NAME)};
#undef KRAIT_NAME

int64_t block(DType t) { return block_of(t).elements; }

// Edits a block's scales by f(d, second), second = m or dmin or null.
template <class Block, class F>
void edit_block(char* bytes, F f) {
  Block b;
  std::memcpy(&b, bytes, sizeof b);
  if constexpr (requires { b.dmin; }) {
    f(&b.d, &b.dmin);
  } else if constexpr (requires { b.m; }) {
    f(&b.d, &b.m);
  } else {
    f(&b.d, static_cast<uint16_t*>(nullptr));
  }
  std::memcpy(bytes, &b, sizeof b);
}
template <class F>
void edit_halves(DType t, char* bytes, F f) {
  switch (t) {
#define KRAIT_EDIT(name) \
  case DType::k##name:   \
    return edit_block<Block##name>(bytes, f);
    KRAIT_BLOCK_TYPES(KRAIT_EDIT)
#undef KRAIT_EDIT
    default:
      FAIL();
  }
}

// Rows [N, K] of blocks as a file holds them: any bytes are valid codes.
struct Weight {
  Weight(DType t, int64_t rows, int64_t cols, uint64_t seed) : dtype(t), N(rows), K(cols) {
    Rng rng(seed);
    raw.resize(static_cast<size_t>(bytes_of(t, N * K)));
    for (char& c : raw) c = static_cast<char>(rng.below(256));
    for (int64_t i = 0; i < N * K / block(t); ++i) {
      edit_halves(t, raw.data() + i * block_of(t).bytes, [&](uint16_t* d, uint16_t* second) {
        *d = f32_to_f16(static_cast<float>(rng.normal()) * 0.01f);
        if (second != nullptr) *second = f32_to_f16(static_cast<float>(rng.normal()) * 0.01f);
      });
    }
  }
  const char* row(int64_t n) const { return raw.data() + n * bytes_of(dtype, K); }
  std::vector<float> values(int64_t n) const {
    std::vector<float> v(static_cast<size_t>(K));
    reference::dequantize_row(dtype, row(n), K, v.data());
    return v;
  }
  // From an address of the least alignment.
  Tensor pack(const KernelSet& set, ThreadPool& pool) const {
    return testing_util::pack_shifted(set, pool, raw, 2, dtype, N, K);
  }
  DType dtype;
  int64_t N, K;
  std::vector<char> raw;
};

// y [M, ldy] with canaries where nothing may be written.
std::vector<float> run(const KernelSet& set, ThreadPool& pool, const Weight& w, const Tensor& packed, const float* x,
                       int64_t ldx, int64_t M, int64_t ldy, const float* bias) {
  return testing_util::run_matmul(set, pool,
                                  {x, ldx, packed.bytes(), w.dtype, Compute::kF32, bias, nullptr, 0, M, w.N, w.K}, ldy);
}

// The definition, straight from the file's bytes.
std::vector<float> define(const Weight& w, const float* x, int64_t ldx, int64_t M, const float* bias) {
  std::vector<float> y;
  std::vector<reference::Quantized32> q(static_cast<size_t>(w.K / 32));
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t k = 0; k < w.K; k += 32) q[static_cast<size_t>(k / 32)] = reference::quantize_32(x + m * ldx + k);
    for (int64_t n = 0; n < w.N; ++n) {
      const float sum = reference::block_dot(w.dtype, w.row(n), q.data(), w.K);
      y.push_back(bias == nullptr ? sum : sum + bias[n]);
    }
  }
  return y;
}

bool same_bits(float a, float b) { return std::memcmp(&a, &b, 4) == 0 || (std::isnan(a) && std::isnan(b)); }

void expect_same(const std::vector<float>& got, int64_t ldy, const std::vector<float>& want, int64_t M, int64_t N) {
  int wrong = 0;
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t n = 0; n < N; ++n) {
      const float a = got[static_cast<size_t>(m * ldy + n)], b = want[static_cast<size_t>(m * N + n)];
      if (!same_bits(a, b) && ++wrong < 4) ADD_FAILURE() << "y[" << m << "][" << n << "] = " << a << ", not " << b;
    }
  }
  EXPECT_EQ(wrong, 0);
}

class Int8MatmulTest : public testing::Test {
 protected:
  template <class F>
  void each(F f) {
    for (const KernelSet* set : cpu_kernel_sets()) {
      for (DType t : kTypes) {
        SCOPED_TRACE(std::string(set->name) + " " + std::string(name_of(t)));
        f(*set, t);
      }
    }
  }
  ThreadPool pool_{2};
};

// Every kernel set gives the bits of the definition, and so all give the same. The weight reaches the kernels packed,
// the definition reads the file's bytes: nothing may take one for the other.
TEST_F(Int8MatmulTest, TrapD4_PackedWeightsGiveTheBitsOfTheirFile) {
  each([&](const KernelSet& set, DType t) {
    int i = 0;
    for (int64_t N : {1, 15, 16, 17, 40, 63, 64, 65, 130}) {
      for (int64_t M : {1, 2, 5, 9, 13, 24, 31}) {
        const int64_t K = block(t) * (1 + (i++ % 3)), ldx = K + i % 4, ldy = N + i % 3;
        SCOPED_TRACE("M " + std::to_string(M) + " N " + std::to_string(N) + " K " + std::to_string(K));
        const Weight w(t, N, K, static_cast<uint64_t>(N + K));
        const std::vector<float> x = testing_util::normals(M * ldx, 7), bias = testing_util::normals(N, 8);
        const float* b = i % 2 == 0 ? bias.data() : nullptr;
        expect_same(run(set, pool_, w, w.pack(set, pool_), x.data(), ldx, M, ldy, b), ldy,
                    define(w, x.data(), ldx, M, b), M, N);
      }
    }
  });
}

TEST_F(Int8MatmulTest, LargerSizesGiveTheBitsOfTheDefinition) {
  each([&](const KernelSet& set, DType t) {
    if (std::strcmp(set.name, "cpu-scalar") == 0) return;
    for (const auto& [M, N, K] : {std::tuple<int64_t, int64_t, int64_t>{1, 300, 1024}, {70, 48, 768}, {400, 17, 256}}) {
      const Weight w(t, N, K, 2);
      const std::vector<float> x = testing_util::normals(M * K, 3);
      expect_same(run(set, pool_, w, w.pack(set, pool_), x.data(), K, M, N, nullptr), N,
                  define(w, x.data(), K, M, nullptr), M, N);
    }
  });
}

// The exactness contract: a row's bits depend on neither the rows beside it, nor the stride, nor the threads.
TEST_F(Int8MatmulTest, RowsAreInvariant) {
  ThreadPool one(1), three(3);
  ThreadPool* pools[] = {&one, &pool_, &three};
  Rng rng(5);
  each([&](const KernelSet& set, DType t) {
    const auto N = static_cast<int64_t>(1 + rng.below(90)), K = block(t) * static_cast<int64_t>(1 + rng.below(3));
    const int64_t kRows = std::strcmp(set.name, "cpu-scalar") == 0 ? 5 : 70;
    const Weight w(t, N, K, 3);
    const Tensor packed = w.pack(set, pool_);
    const std::vector<float> x = testing_util::normals(kRows * K, 4), bias = testing_util::normals(N, 5);
    const std::vector<float> all = run(set, one, w, packed, x.data(), K, kRows, N, bias.data());
    for (int64_t M = 1; M <= kRows; ++M) {
      const auto first = static_cast<int64_t>(rng.below(static_cast<uint64_t>(kRows - M + 1)));
      const int64_t ldy = N + static_cast<int64_t>(rng.below(3));
      const std::vector<float> y = run(set, *pools[M % 3], w, packed, x.data() + first * K, K, M, ldy, bias.data());
      for (int64_t m = 0; m < M; ++m) {
        ASSERT_EQ(0, std::memcmp(&y[static_cast<size_t>(m * ldy)], &all[static_cast<size_t>((first + m) * N)],
                                 static_cast<size_t>(N) * 4))
            << "M " << M << " row " << m;
      }
    }
    // Every second row, by way of the stride.
    const std::vector<float> y = run(set, three, w, packed, x.data(), 2 * K, kRows / 2, N, bias.data());
    for (int64_t m = 0; m < kRows / 2; ++m) {
      ASSERT_EQ(0, std::memcmp(&y[static_cast<size_t>(m * N)], &all[static_cast<size_t>(2 * m * N)],
                               static_cast<size_t>(N) * 4));
    }
  });
}

// Which kernel runs follows from the sizes alone, never from a measurement: the same call gives the same bits.
TEST_F(Int8MatmulTest, TrapB8_RepeatedCallsAreEqual) {
  each([&](const KernelSet& set, DType t) {
    const Weight w(t, 50, 256, 1);
    const std::vector<float> x = testing_util::normals(16 * 256, 2);
    const std::vector<float> first = run(set, pool_, w, w.pack(set, pool_), x.data(), 256, 16, 50, nullptr);
    for (int i = 0; i < 5; ++i) {
      ThreadPool other(1 + i % 3);
      EXPECT_EQ(first, run(set, other, w, w.pack(set, other), x.data(), 256, 16, 50, nullptr));
    }
  });
}

// 16 rows cost one pass over the weight, not 16: they are bit-equal to one at a time (the speed is bench/'s to show).
TEST_F(Int8MatmulTest, TrapH3_SixteenRowsAreOnePass) {
  each([&](const KernelSet& set, DType t) {
    const Weight w(t, 100, 256, 1);
    const Tensor packed = w.pack(set, pool_);
    const std::vector<float> x = testing_util::normals(16 * 256, 2);
    const std::vector<float> all = run(set, pool_, w, packed, x.data(), 256, 16, 100, nullptr);
    for (int64_t m = 0; m < 16; ++m) {
      const std::vector<float> y = run(set, pool_, w, packed, x.data() + m * 256, 256, 1, 100, nullptr);
      ASSERT_EQ(0, std::memcmp(y.data(), &all[static_cast<size_t>(m * 100)], 400));
    }
  });
}

// Against the exact product of the dequantized weight and the activations as they came.
TEST_F(Int8MatmulTest, MatchesTheDequantizedWeight) {
  each([&](const KernelSet& set, DType t) {
    constexpr int64_t M = 3, N = 33, K = 1024;
    const Weight w(t, N, K, 11);
    const std::vector<float> x = testing_util::normals(M * K, 12), bias = testing_util::normals(N, 13);
    const std::vector<float> y = run(set, pool_, w, w.pack(set, pool_), x.data(), K, M, N, bias.data());
    for (int64_t n = 0; n < N; ++n) {
      const std::vector<float> v = w.values(n);
      for (int64_t m = 0; m < M; ++m) {
        const float* row = &x[static_cast<size_t>(m * K)];
        double want = bias[static_cast<size_t>(n)];
        for (int64_t k = 0; k < K; ++k) want += double{row[k]} * double{v[static_cast<size_t>(k)]};
        const double bound = tolerance::block_matmul(row, v.data(), K, std::fabs(want));
        ASSERT_LE(std::fabs(double{y[static_cast<size_t>(m * N + n)]} - want), bound) << m << "," << n;
      }
    }
  });
}

// The largest codes times the largest activations, of either sign: no sum may saturate on its way.
TEST_F(Int8MatmulTest, ExtremesDoNotSaturate) {
  each([&](const KernelSet& set, DType t) {
    const int64_t N = 20, K = 512;
    for (int fill : {0x00, 0x7F, 0x80, 0xFF, 0x0F, 0xF0}) {
      Weight w(t, N, K, 1);
      std::memset(w.raw.data(), fill, w.raw.size());
      for (int64_t i = 0; i < N * K / block(t); ++i) {
        edit_halves(t, w.raw.data() + i * block_of(t).bytes, [](uint16_t* d, uint16_t* second) {
          *d = f32_to_f16(1.0f);
          if (second != nullptr) *second = f32_to_f16(-2.0f);
        });
      }
      std::vector<float> x(static_cast<size_t>(2 * K), 3.0f);
      for (int64_t k = 0; k < K; ++k) x[static_cast<size_t>(K + k)] = k % 2 == 0 ? -3.0f : 3.0f;
      expect_same(run(set, pool_, w, w.pack(set, pool_), x.data(), K, 2, N, nullptr), N,
                  define(w, x.data(), K, 2, nullptr), 2, N);
    }
  });
}

// Infinity and NaN of an activation make every output of their row NaN, and touch no other row. Of a weight's scale:
// its column.
TEST_F(Int8MatmulTest, InfinityAndNaNShow) {
  each([&](const KernelSet& set, DType t) {
    constexpr int64_t M = 13, N = 19, K = 256;
    Weight w(t, N, K, 1);
    edit_halves(t, w.raw.data() + 4 * bytes_of(t, K), [](uint16_t* d, uint16_t*) { *d = 0x7E00; });
    const Tensor packed = w.pack(set, pool_);
    std::vector<float> x = testing_util::normals(M * K, 2);
    const std::vector<float> clean = run(set, pool_, w, packed, x.data(), K, M, N, nullptr);
    x[3 * K + 44] = std::numeric_limits<float>::infinity();
    x[7 * K + 2] = std::numeric_limits<float>::quiet_NaN();
    x[8 * K + 200] = -std::numeric_limits<float>::infinity();
    const std::vector<float> y = run(set, pool_, w, packed, x.data(), K, M, N, nullptr);
    for (int64_t m = 0; m < M; ++m) {
      for (int64_t n = 0; n < N; ++n) {
        const float v = y[static_cast<size_t>(m * N + n)];
        if (m == 3 || m == 7 || m == 8 || n == 4) {
          EXPECT_TRUE(std::isnan(v)) << m << "," << n;
        } else {
          EXPECT_EQ(v, clean[static_cast<size_t>(m * N + n)]);
        }
      }
    }
  });
}

// Trap C15: an infinite or NaN scale is found in any row and block; the largest finite ones are none.
TEST_F(Int8MatmulTest, TrapC15_PackingTellsOfScalesThatAreNotFinite) {
  each([&](const KernelSet& set, DType t) {
    const Weight good(t, 37, 512, 1);
    const auto is_finite = [&](const Weight& w) {
      Tensor packed = Tensor::empty({static_cast<int64_t>(set.packed_weight_bytes(t, w.N, w.K))}, DType::kU8);
      bool not_finite = false;
      set.pack_weight({&pool_}, {w.raw.data(), t, w.N, w.K, packed.bytes(), &not_finite});
      return !not_finite;
    };
    EXPECT_TRUE(is_finite(good));
    const int64_t blocks = good.N * good.K / block(t);
    for (const int64_t at : {int64_t{0}, blocks / 3, blocks - 1}) {
      for (const int half : {0x7C00, 0xFC00, 0x7E01, 0x7BFF, 0xFBFF}) {
        for (const bool at_second : {false, true}) {
          Weight w = good;
          edit_halves(t, w.raw.data() + at * block_of(t).bytes, [&](uint16_t* d, uint16_t* second) {
            *(at_second && second != nullptr ? second : d) = static_cast<uint16_t>(half);
          });
          EXPECT_EQ(is_finite(w), (half & 0x7C00) != 0x7C00) << half << " in block " << at;
        }
      }
    }
  });
}

// Activations from the largest to the smallest: finite, and what cannot be scaled counts as zero.
TEST_F(Int8MatmulTest, MagnitudesOfActivations) {
  each([&](const KernelSet& set, DType t) {
    const Weight w(t, 18, 256, 1);
    const Tensor packed = w.pack(set, pool_);
    for (float size : {0.0f, 1e-45f, 0x1p-119f, 0x1p-118f, 0x1p-100f, 1.0f, 0x1p100f}) {
      std::vector<float> x = testing_util::normals(5 * 256, 3);
      for (float& v : x) v = std::max(-1.0f, std::min(1.0f, v)) * size;
      const std::vector<float> y = run(set, pool_, w, packed, x.data(), 256, 5, 18, nullptr);
      expect_same(y, 18, define(w, x.data(), 256, 5, nullptr), 5, 18);
      for (size_t i = 0; i < 90; ++i) EXPECT_TRUE(std::isfinite(y[i]));
      if (size < 0x1p-118f) {
        EXPECT_EQ(y[0], 0.0f);
      }
    }
  });
}

TEST_F(Int8MatmulTest, NoRowsIsNoWork) {
  each([&](const KernelSet& set, DType t) {
    const Weight w(t, 20, 256, 1);
    run(set, pool_, w, w.pack(set, pool_), nullptr, 256, 0, 20, nullptr);
  });
}

// The embedding reads rows as the file holds them.
TEST_F(Int8MatmulTest, EmbeddingDecodesRows) {
  each([&](const KernelSet& set, DType t) {
    constexpr int64_t D = 512;
    const Weight table(t, 9, D, 1);
    const int32_t ids[] = {8, 0, 3, 8};
    std::vector<float> y(4 * D);
    set.embed({&pool_}, {table.raw.data(), t, ids, y.data(), 4, D});
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(0, std::memcmp(&y[i * D], table.values(ids[i]).data(), D * 4)) << "token " << i;
    }
  });
}

// A packed weight is what stays in memory: within 4 % of the file's blocks.
TEST_F(Int8MatmulTest, PackedSizeStaysNearTheFile) {
  each([&](const KernelSet& set, DType t) {
    const auto packed = static_cast<double>(set.packed_weight_bytes(t, 1024, 2048));
    EXPECT_LE(packed, 1.04 * static_cast<double>(bytes_of(t, 1024 * 2048)));
    EXPECT_GE(packed, static_cast<double>(bytes_of(t, 1024 * 2048)));
  });
}

}  // namespace
}  // namespace krait
