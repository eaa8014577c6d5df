#include "krait/backends/cpu/isa/matmul_kernel.h"

namespace krait::KRAIT_ISA {

const TileKernels& tiles_f32() {
  static constexpr TileKernels kTiles = make_tiles<MathF32>();
  return kTiles;
}

}  // namespace krait::KRAIT_ISA
