#include "krait/backends/cpu/kernel_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "krait/backends/cpu/kernel_testing.h"

namespace krait {
namespace {

class KernelCheckOf : public testing::TestWithParam<const KernelSet*> {};

TEST_P(KernelCheckOf, TrapB5_EveryVariantAgainstTheScalarReference) {
  ThreadPool pool(2);
  for (const KernelCheck& c : check_kernels(*GetParam(), pool)) EXPECT_TRUE(c.ok()) << c.kernel << " " << c.error;
}

INSTANTIATE_TEST_SUITE_P(, KernelCheckOf, testing::ValuesIn(cpu_kernel_sets()), testing_util::set_name);

const KernelSet& scalar() { return *cpu_kernels("cpu-scalar"); }

// The names of the kernels that are found wrong in a set.
std::string wrong(const KernelSet& set) {
  ThreadPool pool(1);
  std::string names;
  for (const KernelCheck& c : check_kernels(set, pool)) {
    const std::string kernel = c.kernel.substr(0, c.kernel.find(' '));
    if (!c.ok() && names.find(kernel + " ") == names.npos) names += kernel + " ";
  }
  return names;
}

// One value of an output off by a hundredth, or not a number, is found, and the kernel named.
TEST(KernelCheckFinds, TrapB10_TrapB5_EachPerturbedKernel) {
  EXPECT_EQ(wrong(scalar()), "");
  const auto check = [](const char* name, auto KernelSet::* kernel, auto perturbed) {
    KernelSet set = scalar();
    set.*kernel = perturbed;
    EXPECT_EQ(wrong(set), std::string(name) + " ");
  };
#define KRAIT_PERTURBED(kernel, Params, output, change)                  \
  check(                                                                 \
      #kernel, &KernelSet::kernel, +[](const Exec& e, const Params& p) { \
        scalar().kernel(e, p);                                           \
        p.output[1] += change;                                           \
      });
  KRAIT_PERTURBED(matmul, MatmulParams, y, 0.01f)
  KRAIT_PERTURBED(norm, NormParams, y, 0.01f)
  KRAIT_PERTURBED(norm, NormParams, residual, 0.01f)
  KRAIT_PERTURBED(gated_norm, GatedNormParams, out, 0.01f)
  KRAIT_PERTURBED(silu_gate, SiluGateParams, out, std::numeric_limits<float>::quiet_NaN())
  KRAIT_PERTURBED(add, AddParams, y, 0.01f)
  KRAIT_PERTURBED(embed, EmbedParams, y, 0.01f)
  KRAIT_PERTURBED(causal_conv, CausalConvParams, state, 0.01f)
  KRAIT_PERTURBED(mamba1_scan, Mamba1ScanParams, state, 0.01f)
  KRAIT_PERTURBED(ssd_scan, SsdScanParams, y, 0.01f)
  KRAIT_PERTURBED(mamba3_scan, Mamba3ScanParams, out, 0.01f)
  KRAIT_PERTURBED(mamba3_scan, Mamba3ScanParams, k, 0.01f)
  KRAIT_PERTURBED(cross_entropy, CrossEntropyParams, logits, 0.01f)
  KRAIT_PERTURBED(distill, DistillParams, teacher, 0.01f)
  KRAIT_PERTURBED(matmul_grad, MatmulGradParams, dw, 0.01f)
  KRAIT_PERTURBED(norm_grad, NormGradParams, dr, 0.01f)
  KRAIT_PERTURBED(norm_grad, NormGradParams, dw, 0.01f)
  KRAIT_PERTURBED(gated_norm_grad, GatedNormGradParams, dz, 0.01f)
  KRAIT_PERTURBED(silu_gate_grad, SiluGateGradParams, dgate, std::numeric_limits<float>::quiet_NaN())
  KRAIT_PERTURBED(embed_grad, EmbedGradParams, dtable, 1e-6f)
  KRAIT_PERTURBED(causal_conv_grad, CausalConvGradParams, dstate, 0.01f)
  KRAIT_PERTURBED(mamba1_scan_grad, Mamba1ScanGradParams, ddt, 0.01f)
  KRAIT_PERTURBED(mamba1_scan_grad, Mamba1ScanGradParams, dA, 0.01f)
  KRAIT_PERTURBED(ssd_scan_grad, SsdScanGradParams, dstate, 0.01f)
  KRAIT_PERTURBED(mamba3_scan_grad, Mamba3ScanGradParams, dx, 0.01f)
  KRAIT_PERTURBED(mamba3_scan_grad, Mamba3ScanGradParams, dB_norm, 0.01f)
#undef KRAIT_PERTURBED
}

// Block types have the same bits in every set: the last one of one value counts.
TEST(KernelCheckFinds, TheLastBitOfAProductWithBlocks) {
  KernelSet set = scalar();
  set.matmul = [](const Exec& e, const MatmulParams& p) {
    scalar().matmul(e, p);
    if (is_block_type(p.w_dtype)) p.y[1] = std::nextafter(p.y[1], 0.0f);
  };
  EXPECT_EQ(wrong(set), "matmul ");
}

}  // namespace
}  // namespace krait
