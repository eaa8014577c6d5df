// Searches the scale, or scale and offset, that lets a group of values be rounded to a few levels with the least
// weighted squared error. Sums run in fixed lanes: the same bits whatever the compiler vectorises.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>

#include "krait/kernels/blocks.h"

namespace krait::quant {

// Integers lo..hi; a value goes to the nearest (ties to even).
struct Uniform {
  float lo, hi;
  float operator()(float v) const {
    constexpr float kMagic = 12582912.0f;  // 1.5·2^23: adding it leaves no fraction bits
    return (std::min(std::max(v, lo), hi) + kMagic) - kMagic;
  }
  float largest() const { return std::max(-lo, hi); }
};

// The 16 uneven levels of IQ4_NL and IQ4_XS.
struct Iq4Levels {
  float operator()(float v) const {
    float level = kIq4Values[0];
    for (int k = 1; k < 16; ++k) {
      const float below = kIq4Values[k - 1], here = kIq4Values[k];
      level = v > 0.5f * (below + here) ? here : level;
    }
    return level;
  }
  float largest() const { return 127; }
};

inline uint8_t iq4_code(float level) {
  uint8_t code = 0;
  while (code < 15 && static_cast<float>(kIq4Values[code]) < level) ++code;
  return code;
}

inline constexpr int kLanes = 8;
using Lanes = std::array<float, kLanes>;
inline float total(const Lanes& a) { return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7])); }

// A group to round: N values and the weights of their squared errors.
template <int N>
struct Group {
  const float* x;
  const float* w;
};

// Of x ≈ s·q with q = levels(x / s).
struct ScaleSums {
  float error;   // Σ w·(s·q − x)²
  float xq, qq;  // Σ w·x·q, Σ w·q²: their quotient is the best scale for these q
};

template <int N, class Levels>
ScaleSums sums_at(const Group<N>& g, float s, const Levels& levels) {
  const float inverse = s == 0 ? 0 : 1 / s;
  Lanes error{}, xq{}, qq{};
  for (int i = 0; i < N; i += kLanes) {
    for (size_t l = 0; l < kLanes; ++l) {
      const float x = g.x[i + static_cast<int>(l)], w = g.w[i + static_cast<int>(l)];
      const float q = levels(x * inverse), wq = w * q, r = s * q - x;
      error[l] += w * r * r;
      xq[l] += wq * x;
      qq[l] += wq * q;
    }
  }
  return {total(error), total(xq), total(qq)};
}

struct Scale {
  float s = 0;
  float error = std::numeric_limits<float>::infinity();
};

// Tries s = ±(largest |x|) / t for each t in `tries`, improving each once by least squares and the best one until that
// stops helping.
template <int N, class Levels>
Scale fit_scale(const Group<N>& g, const Levels& levels, std::span<const float> tries) {
  float largest = 0;
  for (int i = 0; i < N; ++i) largest = std::max(largest, std::fabs(g.x[i]));
  Scale best{0, sums_at(g, 0, levels).error};
  if (largest == 0) return best;
  float next = 0;
  const auto consider = [&](float s) {
    const ScaleSums a = sums_at(g, s, levels);
    const float better = a.qq > 0 ? a.xq / a.qq : s;
    if (a.error < best.error) best = {s, a.error}, next = better;
    return better;
  };
  for (const float t : tries) {
    for (const float sign : {1.0f, -1.0f}) consider(consider(sign * largest / t));
  }
  for (int round = 0; round < 4 && next != best.s; ++round) {
    const float before = best.error;
    consider(next);
    if (best.error == before) break;
  }
  return best;
}

// Of x ≈ s·q − m with q = round((x + m) / s) in 0..top.
struct AffineSums {
  float error, q, qq, xq;  // Σ w·(…)², Σ w·q, Σ w·q², Σ w·x·q
};

template <int N>
AffineSums sums_at(const Group<N>& g, float s, float m, float top) {
  const Uniform levels{0, top};
  const float inverse = s == 0 ? 0 : 1 / s;
  Lanes error{}, sq{}, sqq{}, sxq{};
  for (int i = 0; i < N; i += kLanes) {
    for (size_t l = 0; l < kLanes; ++l) {
      const float x = g.x[i + static_cast<int>(l)], w = g.w[i + static_cast<int>(l)];
      const float q = levels((x + m) * inverse), wq = w * q, r = s * q - m - x;
      error[l] += w * r * r;
      sq[l] += wq;
      sqq[l] += wq * q;
      sxq[l] += wq * x;
    }
  }
  return {total(error), total(sq), total(sqq), total(sxq)};
}

struct Affine {
  float s = 0, m = 0;
  float error = std::numeric_limits<float>::infinity();
};

// The best s and m for codes with these sums; m is kept >= 0 if `floor_m`. `at` if the codes do not determine them.
inline Affine least_squares(const AffineSums& a, double w, double xw, bool floor_m, const Affine& at) {
  const double q = static_cast<double>(a.q), qq = static_cast<double>(a.qq), xq = static_cast<double>(a.xq);
  const double det = w * qq - q * q;
  if (det <= 1e-6 * w * qq) return at;
  Affine r{static_cast<float>((w * xq - q * xw) / det), static_cast<float>((q * xq - qq * xw) / det), 0};
  if (floor_m && r.m < 0) r.s = static_cast<float>(xq / qq), r.m = 0;
  return r.s > 0 ? r : at;
}

// Tries scales of a range that is cut or widened by some steps, improving each once by least squares and the best one
// until that stops helping. s >= 0; m >= 0 if `floor_m`.
template <int N>
Affine fit_affine(const Group<N>& g, float top, bool floor_m, std::span<const float> steps) {
  double w = 0, xw = 0;
  float lo = g.x[0], hi = g.x[0];
  for (int i = 0; i < N; ++i) {
    lo = std::min(lo, g.x[i]);
    hi = std::max(hi, g.x[i]);
    w += static_cast<double>(g.w[i]);
    xw += static_cast<double>(g.w[i]) * static_cast<double>(g.x[i]);
  }
  if (floor_m) lo = std::min(lo, 0.0f);
  Affine best{0, -lo, sums_at(g, 0, -lo, top).error};
  if (hi <= lo) return best;
  Affine next = best;
  const auto consider = [&](const Affine& c) {
    const AffineSums a = sums_at(g, c.s, c.m, top);
    const Affine better = least_squares(a, w, xw, floor_m, c);
    if (a.error < best.error) best = {c.s, c.m, a.error}, next = better;
    return better;
  };
  for (const float step : steps) consider(consider({(hi - lo) / (top + step), -lo}));
  for (int round = 0; round < 4; ++round) {
    const float before = best.error;
    consider(next);
    if (best.error == before) break;
  }
  return best;
}

}  // namespace krait::quant
