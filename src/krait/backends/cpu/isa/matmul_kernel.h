// The microkernel template. A Math adds the products of one step (one k, or one pair) to a tile of accumulators:
//   kStep    k values a step;  kXStep  4-byte elements of x a step and row;  kWStep  bytes of a panel a step
//   step<MR, NR, kOdd>  adds one step; kOdd: only the first k of the pair exists
#pragma once
#include "krait/backends/cpu/isa/matmul_tile.h"

namespace krait::KRAIT_ISA {

constexpr int kVecs = kPanel / kLanes;  // vectors of one k of a panel

// acc[m][v] += x[m]·w[v]
template <int MR, int NV>
[[gnu::always_inline]] inline void outer_product(Vec (&acc)[MR][NV], const Vec (&w)[NV], const float* x) {
  KRAIT_UNROLL for (int m = 0; m < MR; ++m) {
    const Vec b = broadcast(x + m);
    KRAIT_UNROLL for (int v = 0; v < NV; ++v) acc[m][v] = fma(b, w[v], acc[m][v]);
  }
}

struct MathF32 {
  static constexpr int kStep = 1, kXStep = 1, kWStep = 4 * kPanel;
  template <int MR, int NR, bool kOdd>
  KRAIT_INLINE void step(Vec (&acc)[MR][NR * kVecs], const float* x, const char* w, int64_t stride) {
    Vec b[NR * kVecs];
    KRAIT_UNROLL for (int v = 0; v < NR * kVecs; ++v) {
      b[v] = load(reinterpret_cast<const float*>(w + v / kVecs * stride) + v % kVecs * kLanes);
    }
    outer_product<MR, NR * kVecs>(acc, b, x);
  }
};

struct MathF16 {
  static constexpr int kStep = 1, kXStep = 1, kWStep = 2 * kPanel;
  template <int MR, int NR, bool kOdd>
  KRAIT_INLINE void step(Vec (&acc)[MR][NR * kVecs], const float* x, const char* w, int64_t stride) {
    Vec b[NR * kVecs];
    KRAIT_UNROLL for (int v = 0; v < NR * kVecs; ++v) {
      b[v] = load_f16(reinterpret_cast<const uint16_t*>(w + v / kVecs * stride) + v % kVecs * kLanes);
    }
    outer_product<MR, NR * kVecs>(acc, b, x);
  }
};

// A bf16 is the upper half of an f32: widening is a shift or a mask, and exact.
struct MathBf16 {
  static constexpr int kStep = 2, kXStep = 2, kWStep = 4 * kPanel;
  template <int MR, int NR, bool kOdd>
  KRAIT_INLINE void step(Vec (&acc)[MR][NR * kVecs], const float* x, const char* w, int64_t stride) {
    Vec pairs[NR * kVecs], b[NR * kVecs];
    KRAIT_UNROLL for (int v = 0; v < NR * kVecs; ++v) {
      pairs[v] = load(reinterpret_cast<const float*>(w + v / kVecs * stride) + v % kVecs * kLanes);
    }
    KRAIT_UNROLL for (int v = 0; v < NR * kVecs; ++v) b[v] = even_bf16(pairs[v]);
    outer_product<MR, NR * kVecs>(acc, b, x);
    if constexpr (!kOdd) {
      KRAIT_UNROLL for (int v = 0; v < NR * kVecs; ++v) b[v] = odd_bf16(pairs[v]);
      outer_product<MR, NR * kVecs>(acc, b, x + MR);
    }
  }
};

#ifdef __AVX512BF16__
// kParts = 2: the high part's product is added first, then the low part's.
template <int kParts>
struct MathDot {
  static constexpr int kStep = 2, kXStep = kParts, kWStep = 4 * kPanel;
  template <int MR, int NR, bool kOdd>  // an odd K was padded with zeros in x and w
  KRAIT_INLINE void step(Vec (&acc)[MR][NR], const float* x, const char* w, int64_t stride) {
    __m512bh b[NR];
    KRAIT_UNROLL for (int v = 0; v < NR; ++v) {
      b[v] = reinterpret_cast<__m512bh>(load(reinterpret_cast<const float*>(w + v * stride)));
    }
    KRAIT_UNROLL for (int part = 0; part < kParts; ++part) {
      KRAIT_UNROLL for (int m = 0; m < MR; ++m) {
        const auto a = reinterpret_cast<__m512bh>(broadcast(x + part * MR + m));
        KRAIT_UNROLL for (int v = 0; v < NR; ++v) acc[m][v] = _mm512_dpbf16_ps(acc[m][v], a, b[v]);
      }
    }
  }
};
#endif

template <class Math, int MR, int NR>
void tile(const Tile& t) {
  constexpr int kCols = NR * kVecs;
  Vec acc[MR][kCols];
  KRAIT_UNROLL for (int m = 0; m < MR; ++m) {
    KRAIT_UNROLL for (int v = 0; v < kCols; ++v) acc[m][v] = t.carry ? load(t.y + m * t.ldy + v * kLanes) : zero();
  }
  const float* x = t.x;
  const char* w = t.w;
  const int64_t stride = t.w_stride;
  for (int64_t steps = t.k / Math::kStep; steps > 0; --steps) {
    Math::template step<MR, NR, false>(acc, x, w, stride);
    x += Math::kXStep * MR;
    w += Math::kWStep;
  }
  if constexpr (Math::kStep == 2) {
    if (t.k % 2 != 0) Math::template step<MR, NR, true>(acc, x, w, stride);
  }
  KRAIT_UNROLL for (int v = 0; v < kCols; ++v) {
    if (t.bias != nullptr) {
      const Vec b = load(t.bias + v * kLanes);
      KRAIT_UNROLL for (int m = 0; m < MR; ++m) acc[m][v] = add(acc[m][v], b);
    }
    KRAIT_UNROLL for (int m = 0; m < MR; ++m) store(t.y + m * t.ldy + v * kLanes, acc[m][v]);
  }
}

template <class Math, int kClass, int kLog>
constexpr TileKernel tile_or_null() {
  if constexpr (kLog <= kClassLogPanels[kClass]) {
    return tile<Math, kClassRows[kClass], 1 << kLog>;
  } else {
    return nullptr;
  }
}

template <class Math, int kClass>
constexpr void fill_class(TileKernels& t) {
  t.at[kClass][0] = tile_or_null<Math, kClass, 0>();
  t.at[kClass][1] = tile_or_null<Math, kClass, 1>();
  t.at[kClass][2] = tile_or_null<Math, kClass, 2>();
  t.at[kClass][3] = tile_or_null<Math, kClass, 3>();
  if constexpr (kClass + 1 < kClasses) fill_class<Math, kClass + 1>(t);
}

template <class Math>
constexpr TileKernels make_tiles() {
  TileKernels t{};
  fill_class<Math, 0>(t);
  return t;
}

}  // namespace krait::KRAIT_ISA
