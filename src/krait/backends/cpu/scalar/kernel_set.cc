#include "krait/backends/cpu/scalar/ops.h"

namespace krait::scalar {
namespace {

KernelSet make() {
  KernelSet set{};
  set.name = "cpu-scalar";
  KRAIT_MATMUL_KERNELS(KRAIT_SET_KERNEL)
  KRAIT_OTHER_KERNELS(KRAIT_SET_KERNEL)
  KRAIT_TRAINING_KERNELS(KRAIT_SET_KERNEL)
  return set;
}

}  // namespace

const KernelSet& kernel_set() {
  static const KernelSet set = make();
  return set;
}

}  // namespace krait::scalar
