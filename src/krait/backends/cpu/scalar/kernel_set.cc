#include "krait/backends/cpu/scalar/ops.h"

namespace krait::scalar {
namespace {

KernelSet make() {
  KernelSet set{};
  set.name = "cpu-scalar";
  set.packed_weight_bytes = packed_weight_bytes;
  set.pack_weight = pack_weight;
  set.matmul = matmul;
  set.norm = norm;
  set.gated_norm = gated_norm;
  set.silu_gate = silu_gate;
  set.add = add;
  set.embed = embed;
  set.causal_conv = causal_conv;
  set.mamba1_scan = mamba1_scan;
  set.ssd_scan = ssd_scan;
  set.mamba3_scan = mamba3_scan;
  return set;
}

}  // namespace

const KernelSet& kernel_set() {
  static const KernelSet set = make();
  return set;
}

}  // namespace krait::scalar
