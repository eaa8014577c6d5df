// A number with a bound on what f32 arithmetic made of it. Reference templates run at this type give, beside the exact
// result (double), a bound derived operation by operation for the f32 kernels: the first-order running error analysis
// of Wilkinson. Kernels may reorder a formula a little (fold a factor, fuse a multiply-add), so that the tests allow
// twice the bound.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "tests/tolerances.h"

namespace krait::tolerance {

struct Bounded {
  double v = 0;  // exact
  double e = 0;  // |f32 result − v| <= e

  Bounded() = default;
  Bounded(double value, double error) : v(value), e(error) {}
  explicit Bounded(float exact) : v(static_cast<double>(exact)) {}
  explicit Bounded(int exact) : v(exact) {}
  explicit Bounded(int64_t exact) : v(static_cast<double>(exact)) {}
  // Sines and cosines: reference templates compute them in double, f32 kernels with an error of their own (1.5 ulp,
  // values up to 1) and that of the angle.
  explicit Bounded(double sine) : v(sine), e(angle_error + 3 * kF32Unit) {}
  static inline thread_local double angle_error = 0;

  explicit operator int64_t() const { return static_cast<int64_t>(v); }
  friend bool operator<(Bounded a, Bounded b) { return a.v < b.v; }
  static Bounded rounded(double value, double error, double units = 1) {
    return {value, error + units * kF32Unit * std::abs(value)};
  }
  friend Bounded operator-(Bounded a) { return {-a.v, a.e}; }
  friend Bounded operator+(Bounded a, Bounded b) { return Bounded::rounded(a.v + b.v, a.e + b.e); }
  friend Bounded operator-(Bounded a, Bounded b) { return Bounded::rounded(a.v - b.v, a.e + b.e); }
  friend Bounded operator*(Bounded a, Bounded b) {
    return Bounded::rounded(a.v * b.v, std::abs(a.v) * b.e + std::abs(b.v) * a.e + a.e * b.e);
  }
  friend Bounded operator/(Bounded a, Bounded b) {
    const double q = a.v / b.v;
    return Bounded::rounded(q, (a.e + std::abs(q) * b.e) / std::max(std::abs(b.v) - b.e, 0.0));
  }
  Bounded& operator+=(Bounded b) { return *this = *this + b; }
  Bounded& operator*=(Bounded b) { return *this = *this * b; }

  friend double real(Bounded a) { return a.v; }
  friend Bounded abs(Bounded a) { return {std::abs(a.v), a.e}; }
  friend Bounded max(Bounded a, Bounded b) { return {std::max(a.v, b.v), std::max(a.e, b.e)}; }
  friend Bounded min(Bounded a, Bounded b) { return {std::min(a.v, b.v), std::max(a.e, b.e)}; }
  friend Bounded nearbyint(Bounded a) { return {std::nearbyint(a.v), 0}; }
  friend Bounded sqrt(Bounded a) {
    const double s = std::sqrt(a.v);
    return Bounded::rounded(s, s > 0 ? a.e / s : 0);
  }
  // With the errors that isa/vec.h states, in units of half an ulp.
  friend Bounded exp(Bounded a) { return Bounded::rounded(std::exp(a.v), std::exp(a.v) * std::expm1(a.e), 2); }
  friend Bounded log1p(Bounded a) { return Bounded::rounded(std::log1p(a.v), a.e, 3); }  // a >= 0
  friend Bounded tanh(Bounded a) { return Bounded::rounded(std::tanh(a.v), a.e, 5); }
};

}  // namespace krait::tolerance
