// Every kernel of the portable set "cpu-scalar": the reference templates at float, one file an op.
#pragma once
#include "krait/kernels/kernel_set.h"

namespace krait::scalar {

size_t packed_weight_bytes(DType dtype, int64_t N, int64_t K);
void pack_weight(const Exec&, const PackWeightParams&);
void matmul(const Exec&, const MatmulParams&);

void norm(const Exec&, const NormParams&);
void gated_norm(const Exec&, const GatedNormParams&);
void silu_gate(const Exec&, const SiluGateParams&);
void add(const Exec&, const AddParams&);
void embed(const Exec&, const EmbedParams&);
void causal_conv(const Exec&, const CausalConvParams&);
void mamba1_scan(const Exec&, const Mamba1ScanParams&);
void ssd_scan(const Exec&, const SsdScanParams&);
void mamba3_scan(const Exec&, const Mamba3ScanParams&);

const KernelSet& kernel_set();

}  // namespace krait::scalar
