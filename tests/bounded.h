// A number that carries a bound of its rounding error along: the oracle of kernels that sum in an order of their own.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/tolerances.h"

namespace krait::testing_util {

// value: at double. magnitude: the same with every term and factor made positive, so that cancellation does not shrink
// it. error: bound of |value − a kernel's f32 result|, whatever the order of its sums and however it groups factors:
// each operation errs by kRoundings·u of its magnitude - one rounding of its own, one for a factor split off it.
struct Bounded {
  static constexpr double kRoundings = 2 * tolerance::kF32Unit;
  // e^x and log(1 + x) of the kernels err by less than 5 u; x·log2(e) and the reduction by 4 u of x.
  static constexpr double kFunction = 5 * tolerance::kF32Unit, kArgument = 4 * tolerance::kF32Unit;

  Bounded() = default;
  Bounded(double v) : value(v), magnitude(std::fabs(v)) {}  // NOLINT(google-explicit-constructor): as a float would
  Bounded(double v, double m, double e) : value(v), magnitude(m), error(e) {}
  Bounded operator-() const { return {-value, magnitude, error}; }
  Bounded& operator+=(const Bounded& b) { return *this = *this + b; }
  Bounded& operator*=(const Bounded& b) { return *this = *this * b; }

  friend Bounded operator+(const Bounded& a, const Bounded& b) {
    const double m = a.magnitude + b.magnitude;
    const bool exact = (a.magnitude == 0 && a.error == 0) || (b.magnitude == 0 && b.error == 0);
    return {a.value + b.value, m, a.error + b.error + (exact ? 0 : kRoundings * m)};
  }
  friend Bounded operator-(const Bounded& a, const Bounded& b) { return a + -b; }
  friend Bounded operator*(const Bounded& a, const Bounded& b) {
    const double m = a.magnitude * b.magnitude;
    return {a.value * b.value, m, a.magnitude * b.error + b.magnitude * a.error + kRoundings * m};
  }
  friend Bounded operator/(const Bounded& a, const Bounded& b) {
    const double scale = 1 / std::fabs(b.value), m = a.magnitude * scale;
    return {a.value / b.value, m, scale * (a.error + m * b.error) + kRoundings * m};
  }
  friend Bounded exp(const Bounded& a) {
    const double v = std::exp(a.value);
    return {v, v, v * (a.error + kArgument * std::fabs(a.value) + kFunction)};
  }
  friend Bounded log1p(const Bounded& a) {
    const double v = std::log1p(a.value);
    return {v, std::fabs(v), a.error / (1 + a.value) + kFunction * std::fabs(v)};
  }
  friend Bounded log(const Bounded& a) {
    const double v = std::log(a.value);
    return {v, std::fabs(v), a.error / a.value + kFunction * std::fabs(v)};
  }
  friend Bounded sqrt(const Bounded& a) {
    const double v = std::sqrt(a.value);
    return {v, v, (v > 0 ? a.error / (2 * v) : 0) + kRoundings * v};
  }
  friend Bounded tanh(const Bounded& a) {
    const double v = std::tanh(a.value);
    return {v, std::fabs(v), a.error + kFunction * std::fabs(v)};
  }
  friend Bounded nearbyint(const Bounded& a) { return {std::nearbyint(a.value)}; }
  friend double abs(const Bounded& a) { return std::fabs(a.value); }
  explicit operator int64_t() const { return static_cast<int64_t>(value); }
  friend double real(const Bounded& a) { return a.value; }
  friend bool operator<(const Bounded& a, const Bounded& b) { return a.value < b.value; }
  friend bool operator>(const Bounded& a, const Bounded& b) { return a.value > b.value; }

  double value = 0, magnitude = 0, error = 0;
};

// Decays below 2^-96 may count as zero: what they would leave is far below `kLeast`.
constexpr double kLeast = 1e-24;

inline void expect_bounded(const std::vector<float>& got, const std::vector<Bounded>& want, const std::string& where) {
  ASSERT_EQ(got.size(), want.size()) << where;
  for (size_t i = 0; i < got.size(); ++i) {
    const Bounded& w = want[i];
    const double bound = w.error + kLeast;
    if (!(std::fabs(got[i] - w.value) <= bound)) {
      ADD_FAILURE() << where << " element " << i << ": got " << got[i] << ", want " << w.value << ", error "
                    << std::fabs(got[i] - w.value) << ", bound " << bound;
      return;
    }
  }
}

}  // namespace krait::testing_util
