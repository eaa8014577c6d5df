// Every kernel of the portable set "cpu-scalar": the reference templates at float, one file an op.
#pragma once
#include "krait/backends/cpu/kernel_list.h"

namespace krait::scalar {

KRAIT_MATMUL_KERNELS(KRAIT_DECLARE_KERNEL)
KRAIT_OTHER_KERNELS(KRAIT_DECLARE_KERNEL)
KRAIT_TRAINING_KERNELS(KRAIT_DECLARE_KERNEL)

const KernelSet& kernel_set();

}  // namespace krait::scalar
