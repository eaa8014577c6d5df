// Accuracy of isa/vec.h against double, over all magnitudes, and its exact tails.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "krait/backends/cpu/cpu_features.h"

#if defined(__x86_64__)
#define KRAIT_DECLARE(isa)                              \
  namespace krait::isa {                                \
  void probe_exp(const float*, float*, int64_t);        \
  void probe_exp2(const float*, float*, int64_t);       \
  void probe_log1p_unit(const float*, float*, int64_t); \
  void probe_softplus(const float*, float*, int64_t);   \
  void probe_sigmoid(const float*, float*, int64_t);    \
  void probe_silu(const float*, float*, int64_t);       \
  void probe_tanh(const float*, float*, int64_t);       \
  void probe_rsqrt(const float*, float*, int64_t);      \
  float probe_sum(const float*, int64_t);               \
  }
KRAIT_DECLARE(avx2)
KRAIT_DECLARE(avx512)

namespace krait {
namespace {

using Function = void (*)(const float*, float*, int64_t);
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Isa {
  const char* name;
  Function exp, exp2, log1p_unit, softplus, sigmoid, silu, tanh, rsqrt;
  float (*sum)(const float*, int64_t);
};

std::vector<Isa> variants() {
  std::vector<Isa> v;
#define KRAIT_LIST(isa)                                                                                               \
  v.push_back({#isa, isa::probe_exp, isa::probe_exp2, isa::probe_log1p_unit, isa::probe_softplus, isa::probe_sigmoid, \
               isa::probe_silu, isa::probe_tanh, isa::probe_rsqrt, isa::probe_sum})
  if (cpu_features().avx2) KRAIT_LIST(avx2);
  if (cpu_features().avx512) KRAIT_LIST(avx512);
  return v;
}

// Every 997th float of [lo, hi] by bit pattern (so all binades), both signs where the range has them.
std::vector<float> floats(float lo, float hi) {
  std::vector<float> x;
  for (uint32_t u = 0; u < 0x7F800000u; u += 997) {
    for (const uint32_t sign : {0u, 0x80000000u}) {
      const float f = std::bit_cast<float>(u | sign);
      if (f >= lo && f <= hi) x.push_back(f);
    }
  }
  return x;
}

// Largest error in units of the last place of the exact result (of 2^-149 for subnormals).
double max_ulps(Function f, double (*exact)(double), float lo, float hi) {
  const std::vector<float> x = floats(lo, hi);
  std::vector<float> y(x.size());
  f(x.data(), y.data(), static_cast<int64_t>(x.size()));
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = exact(static_cast<double>(x[i]));
    const int exponent = want == 0 ? -126 : std::max(std::ilogb(want), -126);
    const double error = std::fabs(static_cast<double>(y[i]) - want) / std::ldexp(1.0, exponent - 23);
    if (!(error <= worst)) worst = error;
    if (std::isnan(error)) return error;
  }
  return worst;
}

float at(Function f, float x) {
  float y = 0;
  f(&x, &y, 1);
  return y;
}

double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double silu(double x) { return x / (1 + std::exp(-x)); }
double rsqrt(double x) { return 1 / std::sqrt(x); }

TEST(Vec, FunctionsAreAccurate) {
  for (const Isa& isa : variants()) {
    SCOPED_TRACE(isa.name);
    EXPECT_LE(max_ulps(isa.exp, std::exp, -110.0f, 88.72f), 1.0);
    EXPECT_LE(max_ulps(isa.exp2, std::exp2, -124.9f, 127.0f), 1.2);
    EXPECT_LE(max_ulps(isa.log1p_unit, std::log1p, 0.0f, 1.0f), 1.5);
    EXPECT_LE(max_ulps(isa.softplus, softplus, -110.0f, 3e38f), 2.5);
    EXPECT_LE(max_ulps(isa.sigmoid, sigmoid, -87.0f, 3e38f), 2.5);
    EXPECT_LE(max_ulps(isa.silu, silu, -87.0f, 3e38f), 2.5);
    EXPECT_LE(max_ulps(isa.tanh, std::tanh, -3e38f, 3e38f), 2.5);
    EXPECT_LE(max_ulps(isa.rsqrt, rsqrt, 1e-37f, 3e38f), 1.5);
  }
}

// The decays of the scans, which llama.cpp takes one by one from libm.
TEST(Vec, TrapH4_ExponentialsOfTheScans) {
  for (const Isa& isa : variants()) {
    SCOPED_TRACE(isa.name);
    EXPECT_LE(max_ulps(isa.exp, std::exp, -87.0f, 0.0f), 1.0);
    EXPECT_LE(max_ulps(isa.exp2, std::exp2, -124.9f, 0.0f), 1.2);
  }
}

TEST(Vec, FunctionsAtTheirEnds) {
  for (const Isa& isa : variants()) {
    SCOPED_TRACE(isa.name);
    EXPECT_EQ(at(isa.exp, 0.0f), 1.0f);
    EXPECT_EQ(at(isa.exp, -kInf), 0.0f);
    EXPECT_EQ(at(isa.exp, -1e38f), 0.0f);
    EXPECT_EQ(at(isa.exp, kInf), kInf);
    EXPECT_EQ(at(isa.exp, 88.73f), kInf);
    EXPECT_EQ(at(isa.exp2, 0.0f), 1.0f);
    EXPECT_LE(at(isa.exp2, -1e38f), 0x1p-125f);
    EXPECT_GE(at(isa.exp2, 128.0f), 0x1p127f);
    EXPECT_EQ(at(isa.softplus, kInf), kInf);
    EXPECT_EQ(at(isa.softplus, 1e38f), 1e38f);
    EXPECT_EQ(at(isa.softplus, -kInf), 0.0f);
    EXPECT_EQ(at(isa.sigmoid, -kInf), 0.0f);
    EXPECT_EQ(at(isa.sigmoid, kInf), 1.0f);
    EXPECT_EQ(at(isa.silu, -1e38f), 0.0f);
    EXPECT_EQ(at(isa.tanh, kInf), 1.0f);
    EXPECT_EQ(at(isa.tanh, -kInf), -1.0f);
    for (const Function f :
         {isa.exp, isa.exp2, isa.log1p_unit, isa.softplus, isa.sigmoid, isa.silu, isa.tanh, isa.rsqrt}) {
      EXPECT_TRUE(std::isnan(at(f, kNaN)));
    }
  }
}

// A lane gives the same bits in a whole vector and in every tail, and nothing beyond the tail is touched.
TEST(Vec, TailsAreExact) {
  for (const Isa& isa : variants()) {
    for (const Function f : {isa.exp, isa.exp2, isa.softplus, isa.sigmoid, isa.silu, isa.tanh}) {
      float x[48], whole[48];
      for (int i = 0; i < 48; ++i) x[i] = std::sin(static_cast<float>(i)) * 8;
      f(x, whole, 48);
      for (int64_t n = 1; n < 48; ++n) {
        float y[49];
        std::fill(y, y + 49, 77.0f);
        f(x, y, n);
        EXPECT_EQ(std::memcmp(y, whole, static_cast<size_t>(n) * 4), 0) << isa.name << " " << n;
        EXPECT_EQ(y[n], 77.0f);
      }
    }
  }
}

TEST(Vec, SumsEveryLaneOnce) {
  for (const Isa& isa : variants()) {
    float x[40];
    for (int i = 0; i < 40; ++i) x[i] = static_cast<float>(1 << (i % 20));
    for (int64_t n = 0; n <= 40; ++n) {
      float want = 0;
      for (int64_t i = 0; i < n; ++i) want += x[i];
      EXPECT_EQ(isa.sum(x, n), want) << isa.name << " " << n;
    }
  }
}

}  // namespace
}  // namespace krait
#endif
