#include "krait/backends/cpu/isa/ops.h"

#ifdef __AVX512BF16__
namespace krait::avx512 {
const KernelSet& kernel_set();
}
#endif

namespace krait::KRAIT_ISA {
namespace {

KernelSet make() {
#if defined(__AVX512BF16__)
  KernelSet set = avx512::kernel_set();
  set.name = "cpu-avx512-bf16";
#else
  KernelSet set{};
#if defined(__AVX512F__)
  set.name = "cpu-avx512";
#else
  set.name = "cpu-avx2";
#endif
  KRAIT_OTHER_KERNELS(KRAIT_SET_KERNEL)
  KRAIT_TRAINING_KERNELS(KRAIT_SET_KERNEL)
#endif
  KRAIT_MATMUL_KERNELS(KRAIT_SET_KERNEL)
  return set;
}

}  // namespace

const KernelSet& kernel_set() {
  static const KernelSet set = make();
  return set;
}

}  // namespace krait::KRAIT_ISA
