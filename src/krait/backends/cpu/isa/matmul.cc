#include "krait/backends/cpu/isa/ops.h"
#include "krait/backends/cpu/scalar/ops.h"

namespace krait::KRAIT_ISA {

size_t packed_weight_bytes(DType dtype, int64_t N, int64_t K) { return scalar::packed_weight_bytes(dtype, N, K); }
void pack_weight(const Exec& exec, const PackWeightParams& p) { scalar::pack_weight(exec, p); }
void matmul(const Exec& exec, const MatmulParams& p) { scalar::matmul(exec, p); }

}  // namespace krait::KRAIT_ISA
