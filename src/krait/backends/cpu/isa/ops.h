// Every kernel of one instruction-set variant. Files of isa/ are compiled once for each variant (layer.cmake): they
// include intrinsics, C headers, the contract, kernel_list.h and headers of isa/ only, and define everything in
// krait::KRAIT_ISA.
#pragma once
#include "krait/backends/cpu/kernel_list.h"

namespace krait::KRAIT_ISA {

KRAIT_MATMUL_KERNELS(KRAIT_DECLARE_KERNEL)
KRAIT_OTHER_KERNELS(KRAIT_DECLARE_KERNEL)
KRAIT_TRAINING_KERNELS(KRAIT_DECLARE_KERNEL)

const KernelSet& kernel_set();

}  // namespace krait::KRAIT_ISA
