// The scalar functions of the models, for T = float, double or a complex type.
#pragma once
#include <cmath>
#include <complex>

namespace krait::reference {

using std::log1p;
template <class T>
std::complex<T> log1p(const std::complex<T>& u) {  // a complex step asks for no more accuracy near 0
  return std::log(T(1) + u);
}

// log(1 + e^u), without overflow.
template <class T>
T softplus(T u) {
  using std::exp, std::real;
  return real(u) > 0 ? u + log1p(exp(-u)) : log1p(exp(u));
}

template <class T>
T sigmoid(T u) {
  using std::exp;
  return T(1) / (T(1) + exp(-u));
}

template <class T>
T silu(T u) {
  using std::exp;
  return u / (T(1) + exp(-u));
}

// d silu / du
template <class T>
T silu_derivative(T u) {
  const T s = sigmoid(u);
  return s * (T(1) + u * (T(1) - s));
}

template <class T>
T rsqrt(T u) {
  using std::sqrt;
  return T(1) / sqrt(u);
}

}  // namespace krait::reference
