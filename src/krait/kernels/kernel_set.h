// KernelSet: the contract between ops and backends. A backend fills one of these; required entries are never null.
#pragma once
#include <cstddef>

#include "krait/kernels/conv.h"
#include "krait/kernels/cross_entropy.h"
#include "krait/kernels/distill.h"
#include "krait/kernels/elementwise.h"
#include "krait/kernels/exec.h"
#include "krait/kernels/mamba1_scan.h"
#include "krait/kernels/mamba3_scan.h"
#include "krait/kernels/matmul.h"
#include "krait/kernels/norm.h"
#include "krait/kernels/ssd_scan.h"

namespace krait {

struct KernelSet {
  const char* name;  // "cpu-scalar", "cpu-avx2", "cpu-avx512", "cpu-avx512-bf16"

  size_t (*packed_weight_bytes)(DType dtype, int64_t N, int64_t K);
  void (*pack_weight)(const Exec&, const PackWeightParams&);
  void (*matmul)(const Exec&, const MatmulParams&);

  void (*norm)(const Exec&, const NormParams&);
  void (*gated_norm)(const Exec&, const GatedNormParams&);
  void (*silu_gate)(const Exec&, const SiluGateParams&);
  void (*add)(const Exec&, const AddParams&);
  void (*embed)(const Exec&, const EmbedParams&);
  void (*causal_conv)(const Exec&, const CausalConvParams&);
  void (*mamba1_scan)(const Exec&, const Mamba1ScanParams&);
  void (*ssd_scan)(const Exec&, const SsdScanParams&);
  void (*mamba3_scan)(const Exec&, const Mamba3ScanParams&);

  // For training.
  void (*cross_entropy)(const Exec&, const CrossEntropyParams&);
  void (*matmul_grad)(const Exec&, const MatmulGradParams&);
  void (*norm_grad)(const Exec&, const NormGradParams&);
  void (*gated_norm_grad)(const Exec&, const GatedNormGradParams&);
  void (*silu_gate_grad)(const Exec&, const SiluGateGradParams&);
  void (*embed_grad)(const Exec&, const EmbedGradParams&);
  void (*causal_conv_grad)(const Exec&, const CausalConvGradParams&);
  void (*mamba1_scan_grad)(const Exec&, const Mamba1ScanGradParams&);
  void (*ssd_scan_grad)(const Exec&, const SsdScanGradParams&);
  void (*mamba3_scan_grad)(const Exec&, const Mamba3ScanGradParams&);
  void (*distill)(const Exec&, const DistillParams&);
};

}  // namespace krait
