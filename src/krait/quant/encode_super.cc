// Super-blocks of 256 values: groups with small integer scales (and minima) in units of one or two halves.
#include "krait/quant/encode_block.h"
#include "krait/quant/fit.h"
#include "krait/quant/pack.h"

namespace krait::quant {
namespace {

constexpr int kN = 256;
constexpr int kRounds = 3;  // of re-fitting the halves to the codes; later ones change little

template <int kGroup>
Group<kGroup> group(const BlockValues& v, int g) {
  return {v.x + g * kGroup, v.w + g * kGroup};
}

// x ≈ d·scale[g]·q
template <int kGroup>
struct ScaledBlock {
  static constexpr int kGroups = kN / kGroup;
  uint16_t d = 0;
  int scale[kGroups] = {};
  double error = std::numeric_limits<double>::infinity();
  double best_d = 0;  // for these scales and codes, by least squares
};

struct IntRange {
  int lo, hi;
  int nearest(float v) const {
    return static_cast<int>(std::lrint(std::clamp(v, static_cast<float>(lo), static_cast<float>(hi))));
  }
  int clamp(int v) const { return std::clamp(v, lo, hi); }
};

// Integer scales for a given d: for each group the best within `reach` of the fitted scale.
template <int kGroup, class Levels>
ScaledBlock<kGroup> with_d(const BlockValues& v, uint16_t half, const Scale* fit, IntRange range, int reach,
                           const Levels& levels) {
  ScaledBlock<kGroup> b;
  b.d = half;
  b.error = 0;
  const float d = v.value_of(half);
  double xq = 0, qq = 0;
  for (int g = 0; g < b.kGroups; ++g) {
    const int middle = range.nearest(d == 0 ? 0 : fit[g].s / d);
    ScaleSums best{std::numeric_limits<float>::infinity(), 0, 0};
    for (int k = -reach; k <= reach; ++k) {
      const int scale = range.clamp(middle + k);
      const ScaleSums a = sums_at(group<kGroup>(v, g), d * static_cast<float>(scale), levels);
      if (a.error < best.error) best = a, b.scale[g] = scale;
    }
    const double s = b.scale[g];
    b.error += static_cast<double>(best.error);
    xq += s * static_cast<double>(best.xq);
    qq += s * s * static_cast<double>(best.qq);
  }
  b.best_d = qq > 0 ? xq / qq : static_cast<double>(d);
  return b;
}

// `ends`: integers that the scale of largest magnitude is tried at.
template <int kGroup, class Levels>
ScaledBlock<kGroup> fit_scaled(const BlockValues& v, const Levels& levels, std::span<const float> tries, IntRange range,
                               std::span<const int> ends, int reach) {
  Scale fit[kN / kGroup];
  float largest = 0;
  for (int g = 0; g < kN / kGroup; ++g) {
    fit[g] = fit_scale(group<kGroup>(v, g), levels, tries);
    if (std::fabs(fit[g].s) > std::fabs(largest)) largest = fit[g].s;
  }
  ScaledBlock<kGroup> best;
  const auto consider = [&](float d) {
    const auto b = with_d<kGroup>(v, v.half_of(d), fit, range, reach, levels);
    const bool better = b.error < best.error;
    if (better) best = b;
    return better;
  };
  for (const int end : ends) consider(largest / static_cast<float>(end));
  for (int round = 0; round < kRounds && consider(static_cast<float>(best.best_d)); ++round) {
  }
  return best;
}

// x ≈ d·scale[g]·q − dmin·min[g]
template <int kGroup>
struct AffineBlock {
  static constexpr int kGroups = kN / kGroup;
  uint16_t d = 0, dmin = 0;
  uint8_t scale[kGroups] = {}, min[kGroups] = {};
  double error = std::numeric_limits<double>::infinity();
  double best_d = 0, best_dmin = 0;
};

// Sums of the least squares problem for (d, dmin): Σ w·(d·S − dmin·M − x)², S = scale·q, M = min.
struct AffineNormal {
  double ss = 0, sm = 0, mm = 0, xs = 0, xm = 0;

  void add(const AffineSums& a, double w, double xw, int scale, int min) {
    const double s = scale, m = min;
    ss += s * s * static_cast<double>(a.qq);
    sm += s * m * static_cast<double>(a.q);
    mm += m * m * w;
    xs += s * static_cast<double>(a.xq);
    xm += m * xw;
  }
  // Leaves d and dmin alone if they are not determined.
  void solve(double& d, double& dmin) const {
    const double det = ss * mm - sm * sm;
    if (mm == 0 && ss > 0) {
      d = xs / ss;
    } else if (det > 1e-9 * ss * mm) {
      d = (mm * xs - sm * xm) / det;
      dmin = (sm * xs - ss * xm) / det;
    }
  }
};

template <int kGroup>
struct AffineFits {
  Affine fit[kN / kGroup];
  double w[kN / kGroup] = {}, xw[kN / kGroup] = {};

  AffineFits(const BlockValues& v, float top, std::span<const float> steps) {
    for (int g = 0; g < kN / kGroup; ++g) {
      const Group<kGroup> values = group<kGroup>(v, g);
      fit[g] = fit_affine(values, top, true, steps);
      for (int i = 0; i < kGroup; ++i) {
        w[g] += static_cast<double>(values.w[i]);
        xw[g] += static_cast<double>(values.w[i]) * static_cast<double>(values.x[i]);
      }
    }
  }
};

struct Reach {
  int scale, min;
};

// Integer scales and minima for given halves: for each group the best pair around the fitted one.
template <int kGroup>
AffineBlock<kGroup> with_halves(const BlockValues& v, uint16_t d, uint16_t dmin, const AffineFits<kGroup>& fits,
                                float top, int most, Reach reach) {
  AffineBlock<kGroup> b;
  b.d = d;
  b.dmin = dmin;
  b.error = 0;
  const IntRange range{0, most};
  const float fd = v.value_of(d), fm = v.value_of(dmin);
  AffineNormal normal;
  for (int g = 0; g < b.kGroups; ++g) {
    const int scale0 = range.nearest(fd == 0 ? 0 : fits.fit[g].s / fd);
    const int min0 = range.nearest(fm == 0 ? 0 : fits.fit[g].m / fm);
    AffineSums best{std::numeric_limits<float>::infinity(), 0, 0, 0};
    for (int i = -reach.scale; i <= reach.scale; ++i) {
      for (int j = -reach.min; j <= reach.min; ++j) {
        const int scale = range.clamp(scale0 + i), min = range.clamp(min0 + j);
        const AffineSums a =
            sums_at(group<kGroup>(v, g), fd * static_cast<float>(scale), fm * static_cast<float>(min), top);
        if (a.error < best.error) {
          best = a;
          b.scale[g] = static_cast<uint8_t>(scale);
          b.min[g] = static_cast<uint8_t>(min);
        }
      }
    }
    b.error += static_cast<double>(best.error);
    normal.add(best, fits.w[g], fits.xw[g], b.scale[g], b.min[g]);
  }
  b.best_d = static_cast<double>(fd);
  b.best_dmin = static_cast<double>(fm);
  normal.solve(b.best_d, b.best_dmin);
  return b;
}

// `ends`: integers that the largest scale and minimum are tried at.
template <int kGroup>
AffineBlock<kGroup> fit_affine_block(const BlockValues& v, float top, int most, std::span<const float> steps,
                                     std::span<const int> ends, Reach reach) {
  const AffineFits<kGroup> fits(v, top, steps);
  float largest = 0, deepest = 0;
  for (const Affine& a : fits.fit) largest = std::max(largest, a.s), deepest = std::max(deepest, a.m);
  AffineBlock<kGroup> best;
  const auto consider = [&](double d, double dmin) {
    const auto b = with_halves<kGroup>(v, v.half_of(static_cast<float>(std::max(d, 0.0))),
                                       v.half_of(static_cast<float>(std::max(dmin, 0.0))), fits, top, most, reach);
    const bool better = b.error < best.error;
    if (better) best = b;
    return better;
  };
  for (const int end : ends) consider(static_cast<double>(largest) / end, static_cast<double>(deepest) / end);
  for (int round = 0; round < kRounds && consider(best.best_d, best.best_dmin); ++round) {
  }
  return best;
}

template <class Levels>
void scaled_codes(const BlockValues& v, int from, int n, float s, const Levels& levels, float* q) {
  const float inverse = s == 0 ? 0 : 1 / s;
  for (int i = from; i < from + n; ++i) q[i] = levels(v.x[i] * inverse);
}

template <int kGroup>
void affine_codes(const BlockValues& v, const AffineBlock<kGroup>& b, float top, uint8_t* q) {
  const Uniform levels{0, top};
  for (int g = 0; g < b.kGroups; ++g) {
    const float s = v.value_of(b.d) * static_cast<float>(b.scale[g]);
    const float m = v.value_of(b.dmin) * static_cast<float>(b.min[g]);
    const float inverse = s == 0 ? 0 : 1 / s;
    for (int i = g * kGroup; i < (g + 1) * kGroup; ++i) q[i] = static_cast<uint8_t>(levels((v.x[i] + m) * inverse));
  }
}

// Fits, packs and returns the integer scales of a type with uniform levels −half_range..half_range − 1 or IQ4's.
template <int kGroup, class Levels, class Block, class CodeOf>
ScaledBlock<kGroup> encode_scaled(const BlockValues& v, const Levels& levels, std::span<const float> tries,
                                  IntRange range, std::span<const int> ends, int reach, CodeOf code_of, Block& out) {
  const auto b = fit_scaled<kGroup>(v, levels, tries, range, ends, reach);
  float q[kN];
  for (int g = 0; g < b.kGroups; ++g) {
    scaled_codes(v, g * kGroup, kGroup, v.value_of(b.d) * static_cast<float>(b.scale[g]), levels, q);
  }
  uint8_t u[kN];
  for (int i = 0; i < kN; ++i) u[i] = code_of(q[i]);
  pack(u, out);
  out.d = b.d;
  return b;
}

template <class Block>
void encode_6bit_scales(const BlockValues& v, float top, std::span<const float> steps, std::span<const int> ends,
                        Reach reach, Block& out) {
  const auto b = fit_affine_block<32>(v, top, 63, steps, ends, reach);
  uint8_t q[kN];
  affine_codes(v, b, top, q);
  pack(q, out);
  pack_scales6(b.scale, b.min, out.s);
  out.d = b.d;
  out.dmin = b.dmin;
}

}  // namespace

void encode_block(const BlockValues& v, BlockQ2_K& out) {
  static constexpr float kSteps[] = {-0.8f, -0.5f, -0.2f, 0, 0.2f, 0.5f, 0.8f, 1.2f, 1.6f, 2};
  static constexpr int kEnds[] = {15, 14, 13, 12};
  const auto b = fit_affine_block<16>(v, 3, 15, kSteps, kEnds, {1, 1});
  uint8_t q[kN];
  affine_codes(v, b, 3, q);
  pack(q, out);
  for (int g = 0; g < 16; ++g) out.s[g] = static_cast<uint8_t>(b.scale[g] | b.min[g] << 4);
  out.d = b.d;
  out.dmin = b.dmin;
}

void encode_block(const BlockValues& v, BlockQ3_K& out) {
  static constexpr float kTries[] = {2.2f, 2.6f, 3, 3.4f, 3.8f, 4.2f, 4.6f};
  static constexpr int kEnds[] = {-32, -31, -30, 31, 30};
  const auto code_of = [](float q) { return static_cast<uint8_t>(q + 4); };
  const auto b = encode_scaled<16>(v, Uniform{-4, 3}, kTries, IntRange{-32, 31}, kEnds, 1, code_of, out);
  pack_scales_q3(b.scale, out.s);
}

void encode_block(const BlockValues& v, BlockQ4_K& out) {
  static constexpr float kSteps[] = {-1.5f, -1, -0.6f, -0.3f, 0, 0.3f, 0.6f, 1, 1.5f};
  static constexpr int kEnds[] = {63, 61, 58};
  encode_6bit_scales(v, 15, kSteps, kEnds, {1, 1}, out);
}

void encode_block(const BlockValues& v, BlockQ5_K& out) {
  static constexpr float kSteps[] = {-3, -2, -1.4f, -0.8f, -0.4f, 0, 0.4f, 0.8f};
  static constexpr int kEnds[] = {63, 60};
  encode_6bit_scales(v, 31, kSteps, kEnds, {1, 2}, out);
}

void encode_block(const BlockValues& v, BlockQ6_K& out) {
  static constexpr float kTries[] = {32, 31.5f, 31, 30.5f, 30, 29.5f, 29, 28.5f, 28};
  static constexpr int kEnds[] = {-128, 127};
  const auto code_of = [](float q) { return static_cast<uint8_t>(q + 32); };
  const auto b = encode_scaled<16>(v, Uniform{-32, 31}, kTries, IntRange{-128, 127}, kEnds, 3, code_of, out);
  for (int g = 0; g < 16; ++g) out.s[g] = static_cast<int8_t>(b.scale[g]);
}

void encode_block(const BlockValues& v, BlockIQ4_XS& out) {
  static constexpr float kTries[] = {88, 96, 104, 110, 116, 122, 127, 132, 138, 145, 155};
  static constexpr int kEnds[] = {-32, -31, 31, -30};
  const auto b = encode_scaled<32>(v, Iq4Levels{}, kTries, IntRange{-32, 31}, kEnds, 1, iq4_code, out);
  pack_scales_iq4(b.scale, out);
}

}  // namespace krait::quant
