#include "krait/backends/cpu/isa/int8_kernel.h"

namespace krait::KRAIT_ISA {

const Int8Kernels& int8_kernels_k(DType t) {
  static constexpr Int8Kernels kQ2 = make_int8_kernels<DType::kQ2_K>();
  static constexpr Int8Kernels kQ3 = make_int8_kernels<DType::kQ3_K>();
  static constexpr Int8Kernels kQ4 = make_int8_kernels<DType::kQ4_K>();
  static constexpr Int8Kernels kQ5 = make_int8_kernels<DType::kQ5_K>();
  static constexpr Int8Kernels kQ6 = make_int8_kernels<DType::kQ6_K>();
  static constexpr Int8Kernels kIq4 = make_int8_kernels<DType::kIQ4_XS>();
  return t == DType::kQ2_K   ? kQ2
         : t == DType::kQ3_K ? kQ3
         : t == DType::kQ4_K ? kQ4
         : t == DType::kQ5_K ? kQ5
         : t == DType::kQ6_K ? kQ6
                             : kIq4;
}

}  // namespace krait::KRAIT_ISA
