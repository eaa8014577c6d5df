#include "krait/backends/cpu/isa/matmul_kernel.h"

namespace krait::KRAIT_ISA {

const TileKernels& tiles_f16() {
  static constexpr TileKernels kTiles = make_tiles<MathF16>();
  return kTiles;
}

}  // namespace krait::KRAIT_ISA
