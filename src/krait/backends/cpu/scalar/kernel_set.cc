#include "krait/backends/cpu/scalar/ops.h"

namespace krait::scalar {
namespace {

KernelSet make() {
  KernelSet set{};
  set.name = "cpu-scalar";
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

}  // namespace krait::scalar
