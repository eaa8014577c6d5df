#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <vector>

#include "krait/core/error.h"
#include "krait/core/half.h"
#include "krait/core/rng.h"
#include "krait/core/tensor.h"
#include "krait/core/thread_pool.h"

namespace krait {
namespace {

TEST(Half, F16RoundTripsEveryPattern) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = f16_to_f32(static_cast<uint16_t>(h));
    if (std::isnan(f)) continue;
    EXPECT_EQ(f32_to_f16(f), h);
  }
  EXPECT_EQ(f32_to_f16(65519.9f), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7C00);
  EXPECT_EQ(f32_to_f16(1.0f + 0x1p-11f), 0x3C00);  // tie to even
  EXPECT_EQ(f32_to_f16(1.0f + 3 * 0x1p-11f), 0x3C02);
  EXPECT_EQ(f32_to_f16(0x1p-25f), 0);  // tie to even at the smallest subnormal
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(NAN))));
}

TEST(Half, BF16RoundTripsEveryPattern) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = bf16_to_f32(static_cast<uint16_t>(h));
    if (std::isnan(f)) continue;
    EXPECT_EQ(f32_to_bf16(f), h);
  }
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(NAN))));
}

TEST(Rng, PhiloxKnownAnswers) {  // Random123 kat_vectors, philox4x32 10
  EXPECT_EQ(philox(0, 0, 0), (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~0ull, ~0ull, ~0ull), (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Tensor, NarrowReshapeClone) {
  Tensor t = Tensor::empty({3, 4});
  for (int i = 0; i < 12; ++i) t.f32()[i] = static_cast<float>(i);
  Tensor c = t.narrow(1, 1, 2);
  EXPECT_FALSE(c.is_contiguous());
  Tensor d = c.clone();
  EXPECT_EQ(d.shape(), Shape({3, 2}));
  EXPECT_EQ(d.f32()[5], 10.0f);
  EXPECT_THROW(c.reshape({6}), Error);
  EXPECT_THROW(t.narrow(0, 2, 2), Error);
  EXPECT_THROW(t.data<int32_t>(), Error);
  EXPECT_THROW(Shape({int64_t{1} << 40, int64_t{1} << 40}), Error);
}

TEST(Tensor, BlockTypesCountBytesByWholeBlocks) {
  const Tensor t = Tensor::zeros({3, 512}, DType::kQ4_K);
  EXPECT_EQ(t.nbytes(), 3 * 2 * 144);
  EXPECT_EQ(t.narrow(0, 1, 2).bytes() - t.bytes(), 2 * 144);
  EXPECT_EQ(t.narrow(0, 1, 2).nbytes(), 2 * 2 * 144);
  EXPECT_EQ(t.narrow(0, 1, 1).clone().nbytes(), 2 * 144);
  EXPECT_EQ(t.reshape({6, 256}).nbytes(), t.nbytes());
  EXPECT_EQ(size_of(DType::kQ8_0), 0);
  EXPECT_EQ(bytes_of(DType::kBF16, 7), 14);
  EXPECT_EQ(name_of(DType::kIQ4_XS), "iq4_xs");
}

TEST(Tensor, BlockTypesAreNotCutWithinARow) {
  EXPECT_THROW(Tensor::empty({2, 100}, DType::kQ8_0), Error);
  EXPECT_THROW(Tensor::empty({}, DType::kQ8_0), Error);
  const Tensor t = Tensor::zeros({2, 256}, DType::kQ8_0);
  EXPECT_THROW(t.narrow(1, 0, 32), Error);
  EXPECT_THROW(t.reshape({32, 16}), Error);
  EXPECT_THROW(t.reshape({512}).narrow(0, 0, 32), Error);
}

TEST(ThreadPool, EveryIndexOnceUnderContention) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 2000; ++round) {
      const int64_t n = round % 37;
      std::vector<std::atomic<int>> hits(static_cast<size_t>(n));
      pool.parallel_for(n, [&](int64_t i) { hits[static_cast<size_t>(i)].fetch_add(1); });
      for (auto& h : hits) ASSERT_EQ(h.load(), 1);
    }
  }
}

// Plain memory, every element written by another thread each round: only the pool orders the writes (thread sanitizer).
TEST(ThreadPool, RunsAreOrderedInMemory) {
  ThreadPool pool(4);
  std::vector<int64_t> v(64);
  constexpr int kRounds = 2000;
  for (int64_t round = 0; round < kRounds; ++round) {
    pool.parallel_for(64, [&](int64_t i) { v[static_cast<size_t>((i * 7 + round) % 64)] += 1; });
  }
  for (const int64_t x : v) EXPECT_EQ(x, kRounds);
}

TEST(ThreadPool, ConcurrentCallersAreServed) {
  ThreadPool pool(2);
  std::atomic<int64_t> sum{0};
  {
    std::vector<std::jthread> callers;
    for (int c = 0; c < 3; ++c) {
      callers.emplace_back([&] {
        for (int i = 0; i < 300; ++i) pool.parallel_for(10, [&](int64_t k) { sum += k; });
      });
    }
  }
  EXPECT_EQ(sum.load(), 3 * 300 * 45);
}

}  // namespace
}  // namespace krait
