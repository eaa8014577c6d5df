#include "krait/backends/cpu/isa/matmul_kernel.h"

#ifdef __AVX512BF16__
namespace krait::KRAIT_ISA {

const TileKernels& tiles_dot1() {
  static constexpr TileKernels kTiles = make_tiles<MathDot<1>>();
  return kTiles;
}

const TileKernels& tiles_dot2() {
  static constexpr TileKernels kTiles = make_tiles<MathDot<2>>();
  return kTiles;
}

}  // namespace krait::KRAIT_ISA
#endif
