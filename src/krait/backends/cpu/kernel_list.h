// The kernels of a set by name, for declaring them in a namespace and for filling a KernelSet with them.
#pragma once
#include "krait/kernels/kernel_set.h"

namespace krait {

#define KRAIT_MATMUL_KERNELS(X) X(packed_weight_bytes) X(pack_weight) X(matmul)
#define KRAIT_OTHER_KERNELS(X) \
  X(norm)                      \
  X(gated_norm)                \
  X(silu_gate)                 \
  X(add)                       \
  X(embed)                     \
  X(causal_conv)               \
  X(mamba1_scan)               \
  X(ssd_scan)                  \
  X(mamba3_scan)

#define KRAIT_TRAINING_KERNELS(X) \
  X(cross_entropy)                \
  X(matmul_grad)                  \
  X(norm_grad)                    \
  X(gated_norm_grad)              \
  X(silu_gate_grad)               \
  X(embed_grad)                   \
  X(causal_conv_grad)             \
  X(mamba1_scan_grad)             \
  X(ssd_scan_grad)                \
  X(mamba3_scan_grad)             \
  X(distill)

// Function types of the set's pointers.
template <class F>
struct KernelType;
template <class F>
struct KernelType<F*> {
  using type = F;
};

#define KRAIT_DECLARE_KERNEL(name) KernelType<decltype(KernelSet::name)>::type name;
#define KRAIT_SET_KERNEL(name) set.name = name;

#define KRAIT_COUNT_KERNEL(name) +1  // NOLINT(bugprone-macro-parentheses): a sum
static_assert(sizeof(KernelSet) == sizeof(void*) * (1 KRAIT_MATMUL_KERNELS(KRAIT_COUNT_KERNEL)
                                                        KRAIT_OTHER_KERNELS(KRAIT_COUNT_KERNEL)
                                                            KRAIT_TRAINING_KERNELS(KRAIT_COUNT_KERNEL)),
              "the lists above name every kernel of a KernelSet");
#undef KRAIT_COUNT_KERNEL

}  // namespace krait
