// Blocks of 32 values: one scale, or a scale and an offset, each a half.
#include "krait/quant/encode_block.h"
#include "krait/quant/fit.h"
#include "krait/quant/pack.h"

namespace krait::quant {
namespace {

constexpr int kN = 32;

// `count` values from `first`, `step` apart.
template <size_t kCount>
constexpr std::array<float, kCount> grid(float first, float step) {
  std::array<float, kCount> t{};
  for (size_t i = 0; i < kCount; ++i) t[i] = first + step * static_cast<float>(i);
  return t;
}

// The half that serves best as scale: the fitted one and its neighbours.
template <class Levels>
uint16_t best_scale(const BlockValues& v, const Levels& levels, std::span<const float> tries) {
  const Group<kN> g{v.x, v.w};
  const uint16_t fitted = v.half_of(fit_scale(g, levels, tries).s);
  uint16_t best = fitted;
  float least = std::numeric_limits<float>::infinity();
  for (const int step : {0, -1, 1}) {
    const uint16_t h = half_step(fitted, step);
    const float error = sums_at(g, v.value_of(h), levels).error;
    if (error < least) least = error, best = h;
  }
  return best;
}

struct Halves {
  uint16_t d, m;
};

// Scale and offset (x ≈ d·q + m) as halves: the fitted ones and their neighbours.
Halves best_affine(const BlockValues& v, float top, std::span<const float> steps) {
  const Group<kN> g{v.x, v.w};
  const Affine fit = fit_affine(g, top, false, steps);
  const Halves fitted{v.half_of(fit.s), v.half_of(-fit.m)};
  Halves best = fitted;
  float least = std::numeric_limits<float>::infinity();
  for (const int ds : {0, -1, 1}) {
    for (const int ms : {0, -1, 1}) {
      const Halves h{half_step(fitted.d, ds), half_step(fitted.m, ms)};
      const float error = sums_at(g, v.value_of(h.d), -v.value_of(h.m), top).error;
      if (error < least) least = error, best = h;
    }
  }
  return best;
}

template <class Levels, class Code>
void write_codes(const BlockValues& v, float s, float m, const Levels& levels, Code* q, float shift) {
  const float inverse = s == 0 ? 0 : 1 / s;
  for (int i = 0; i < kN; ++i) q[i] = static_cast<Code>(levels((v.x[i] + m) * inverse) + shift);
}

template <class Block>
void encode_centred(const BlockValues& v, float half_range, std::span<const float> tries, Block& b) {
  const Uniform levels{-half_range, half_range - 1};
  b.d = best_scale(v, levels, tries);
  uint8_t q[kN];
  write_codes(v, v.value_of(b.d), 0, levels, q, half_range);
  pack(q, b);
}

template <class Block>
void encode_affine(const BlockValues& v, float top, std::span<const float> steps, Block& b) {
  const Halves h = best_affine(v, top, steps);
  b.d = h.d;
  b.m = h.m;
  uint8_t q[kN];
  write_codes(v, v.value_of(h.d), -v.value_of(h.m), Uniform{0, top}, q, 0);
  pack(q, b);
}

}  // namespace

// −128 is left out: kernels that negate codes cannot hold it.
void encode_block(const BlockValues& v, BlockQ8_0& b) {
  static constexpr auto kTries = grid<17>(127, -0.5f);
  const Uniform levels{-127, 127};
  b.d = best_scale(v, levels, kTries);
  write_codes(v, v.value_of(b.d), 0, levels, b.q, 0);
}

void encode_block(const BlockValues& v, BlockQ4_0& b) {
  static constexpr auto kTries = grid<21>(5.5f, 0.2f);
  encode_centred(v, 8, kTries, b);
}

void encode_block(const BlockValues& v, BlockQ5_0& b) {
  static constexpr auto kTries = grid<25>(12.5f, 0.25f);
  encode_centred(v, 16, kTries, b);
}

void encode_block(const BlockValues& v, BlockQ4_1& b) {
  static constexpr auto kSteps = grid<21>(-1, 0.2f);
  encode_affine(v, 15, kSteps, b);
}

void encode_block(const BlockValues& v, BlockQ5_1& b) {
  static constexpr auto kSteps = grid<25>(-3, 0.25f);
  encode_affine(v, 31, kSteps, b);
}

void encode_block(const BlockValues& v, BlockIQ4_NL& b) {
  static constexpr auto kTries = grid<21>(88, 4);
  b.d = best_scale(v, Iq4Levels{}, kTries);
  float level[kN];
  write_codes(v, v.value_of(b.d), 0, Iq4Levels{}, level, 0);
  uint8_t q[kN];
  for (int i = 0; i < kN; ++i) q[i] = iq4_code(level[i]);
  pack(q, b);
}

}  // namespace krait::quant
