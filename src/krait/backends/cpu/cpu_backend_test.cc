#include "krait/backends/cpu/cpu_backend.h"

#include <gtest/gtest.h>

namespace krait {
namespace {

TEST(CpuBackend, ListsSetsBestFirstScalarLast) {
  const auto sets = cpu_kernel_sets();
  ASSERT_FALSE(sets.empty());
  EXPECT_EQ(sets.front(), &cpu_kernels());
  EXPECT_STREQ(sets.back()->name, "cpu-scalar");
  for (const KernelSet* set : sets) EXPECT_EQ(cpu_kernels(set->name), set);
  EXPECT_EQ(cpu_kernels("cpu-none"), nullptr);
}

TEST(CpuBackend, DescribesTheCpu) { EXPECT_NE(cpu_description().find(':'), std::string::npos); }

}  // namespace
}  // namespace krait
