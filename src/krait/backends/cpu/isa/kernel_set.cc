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
  set.norm = norm;
  set.gated_norm = gated_norm;
  set.silu_gate = silu_gate;
  set.add = add;
  set.embed = embed;
  set.causal_conv = causal_conv;
  set.mamba1_scan = mamba1_scan;
  set.ssd_scan = ssd_scan;
  set.mamba3_scan = mamba3_scan;
#endif
  set.packed_weight_bytes = packed_weight_bytes;
  set.pack_weight = pack_weight;
  set.matmul = matmul;
  return set;
}

}  // namespace

const KernelSet& kernel_set() {
  static const KernelSet set = make();
  return set;
}

}  // namespace krait::KRAIT_ISA
