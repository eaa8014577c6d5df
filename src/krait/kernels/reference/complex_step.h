// Gradients by complex step, for the tests of the gradient templates: Im f(x + ih) / h has no cancellation, so that
// h = 1e-30 leaves rounding alone (Squire and Trapp, Using complex variables to estimate derivatives, 1998).
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <string>
#include <vector>

#include "krait/core/rng.h"

namespace krait::reference {

using Complex = std::complex<double>;

// An input of a forward template, with the gradient that a gradient template added to what was stored before.
class StepInput {
 public:
  StepInput(int64_t n, uint64_t seed, double scale = 1, double mean = 0) : gradient(normals(n, seed + 1000)) {
    for (const double v : normals(n, seed)) value.push_back(mean + scale * v);
    for (const double v : value) complex.emplace_back(v);
    before = gradient;
  }
  static std::vector<double> normals(int64_t n, uint64_t seed) {
    Rng rng(seed, 5);
    std::vector<double> v(static_cast<size_t>(n));
    for (double& d : v) d = rng.normal();
    return v;
  }

  std::vector<double> value, gradient, before;
  std::vector<Complex> complex;
};

// f(): the outputs contracted with their gradients, computed from the inputs' complex values. `added`: the gradient
// template adds to what is stored, else it replaces it.
template <class F>
void expect_gradient(const std::string& name, StepInput& input, F f, bool added = true) {
  constexpr double kStep = 1e-30;
  std::vector<double> want;
  double largest = 0;
  for (Complex& x : input.complex) {
    const Complex before = x;
    x += Complex(0, kStep);
    want.push_back(f().imag() / kStep);
    x = before;
    largest = std::max(largest, std::fabs(want.back()));
  }
  for (size_t i = 0; i < want.size(); ++i) {
    const double got = input.gradient[i] - (added ? input.before[i] : 0);
    // What was stored, of order 1, costs its own rounding.
    if (!(std::fabs(got - want[i]) <= 1e-9 * std::max(largest, 1e-5))) {
      ADD_FAILURE() << name << "[" << i << "]: got " << got << ", complex step says " << want[i];
    }
  }
}

}  // namespace krait::reference
