#include "krait/backends/cpu/isa/int8_kernel.h"

namespace krait::KRAIT_ISA {

const Int8Kernels& int8_kernels_legacy(DType t) {
  static constexpr Int8Kernels kQ8 = make_int8_kernels<DType::kQ8_0>();
  static constexpr Int8Kernels kQ4 = make_int8_kernels<DType::kQ4_0>();
  static constexpr Int8Kernels kQ4Plus = make_int8_kernels<DType::kQ4_1>();
  static constexpr Int8Kernels kQ5 = make_int8_kernels<DType::kQ5_0>();
  static constexpr Int8Kernels kQ5Plus = make_int8_kernels<DType::kQ5_1>();
  static constexpr Int8Kernels kIq4 = make_int8_kernels<DType::kIQ4_NL>();
  return t == DType::kQ8_0   ? kQ8
         : t == DType::kQ4_0 ? kQ4
         : t == DType::kQ4_1 ? kQ4Plus
         : t == DType::kQ5_0 ? kQ5
         : t == DType::kQ5_1 ? kQ5Plus
                             : kIq4;
}

}  // namespace krait::KRAIT_ISA
