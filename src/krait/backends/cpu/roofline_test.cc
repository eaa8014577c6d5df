#include "krait/backends/cpu/roofline.h"

#include <gtest/gtest.h>

#include "krait/backends/cpu/cpu_features.h"

namespace krait {
namespace {

// Bounds that any machine that builds this meets, and that a loop optimised away or counted wrongly does not.
TEST(Roofline, IsPlausible) {
  ThreadPool pool(1);
  const Roofline r = measure_roofline(pool);
  std::printf("one thread: f32 %.1f, bf16 %.1f GFLOP/s, int8 %.1f Gop/s, read %.1f, copy %.1f GB/s\n", r.f32_gflops,
              r.bf16_gflops, r.int8_gops, r.read_gb_per_s, r.copy_gb_per_s);
  const double most_f32 = 8.0 * (cpu_features().avx512 ? 64 : 32);  // 8 GHz, two fused multiply-adds a cycle
  EXPECT_GT(r.f32_gflops, 0.1);
  EXPECT_LT(r.f32_gflops, most_f32);
  const double f32_alone = measure_f32_gflops(pool);
  EXPECT_GT(f32_alone, 0.1);
  EXPECT_LT(f32_alone, most_f32);
  EXPECT_GT(r.bf16_gflops, 0.9 * r.f32_gflops);
  EXPECT_LT(r.bf16_gflops, 2.5 * most_f32);
  EXPECT_GT(r.int8_gops, 0.1);
  EXPECT_LT(r.int8_gops, 5 * most_f32);
  EXPECT_GT(r.read_gb_per_s, 0.1);
  EXPECT_LT(r.read_gb_per_s, 1000);
  EXPECT_GT(r.copy_gb_per_s, 0.1);
  EXPECT_LT(r.copy_gb_per_s, 1000);
  if (!cpu_features().avx2) return;
  // A set is rated by its own instructions: wide vectors and dot products are not in reach of the scalar one.
  const Roofline narrow = RooflineMeter(pool, "cpu-scalar").sample();
  EXPECT_LT(narrow.f32_gflops, 0.9 * r.f32_gflops);
  EXPECT_EQ(narrow.bf16_gflops, narrow.f32_gflops);
}

}  // namespace
}  // namespace krait
