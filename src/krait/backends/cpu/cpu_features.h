// What this CPU and its operating system can run (CPUID and XCR0, by way of the compiler's run time).
#pragma once
#include <string>

namespace krait {

struct CpuFeatures {
  bool avx2 = false;         // with FMA, F16C and BMI2
  bool avx512 = false;       // F, BW, DQ, VL, and all of avx2
  bool avx512_bf16 = false;  // BF16 and VNNI, and all of avx512
  std::string model;         // "AMD EPYC 9354", or empty
};

const CpuFeatures& cpu_features();

}  // namespace krait
