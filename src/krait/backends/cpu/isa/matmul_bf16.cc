#include "krait/backends/cpu/isa/matmul_kernel.h"

namespace krait::KRAIT_ISA {

const TileKernels& tiles_bf16() {
  static constexpr TileKernels kTiles = make_tiles<MathBf16>();
  return kTiles;
}

}  // namespace krait::KRAIT_ISA
