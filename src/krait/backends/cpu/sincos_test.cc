// Accuracy of isa/sincos.h against double, and its exact cases.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "krait/backends/cpu/cpu_features.h"

#if defined(__x86_64__)
#define KRAIT_DECLARE(isa)                                    \
  namespace krait::isa {                                      \
  void probe_sincos(const int32_t*, float*, float*, int64_t); \
  void probe_phase_of_turns(const float*, int32_t*, int64_t); \
  }
KRAIT_DECLARE(avx2)
KRAIT_DECLARE(avx512)

namespace krait {
namespace {

struct Isa {
  const char* name;
  void (*sincos)(const int32_t*, float*, float*, int64_t);
  void (*phase_of_turns)(const float*, int32_t*, int64_t);
};

std::vector<Isa> variants() {
  std::vector<Isa> v;
  if (cpu_features().avx2) v.push_back({"avx2", avx2::probe_sincos, avx2::probe_phase_of_turns});
  if (cpu_features().avx512) v.push_back({"avx512", avx512::probe_sincos, avx512::probe_phase_of_turns});
  return v;
}

double ulps(float got, double want) {
  const auto near = static_cast<float>(std::abs(want));
  const float ulp = std::nextafter(near, std::numeric_limits<float>::infinity()) - near;
  return std::abs(static_cast<double>(got) - want) / static_cast<double>(ulp);
}

TEST(SinCos, WithinOneAndAHalfUlpAllAroundTheTurn) {
  std::vector<int32_t> phase;
  for (int64_t v = -(int64_t{1} << 31); v < int64_t{1} << 31; v += 7919) phase.push_back(static_cast<int32_t>(v));
  for (int64_t quarter = -2; quarter < 2; ++quarter) {
    for (int64_t near = -1000; near <= 1000; ++near) {
      phase.push_back(static_cast<int32_t>(static_cast<uint32_t>(quarter * (1 << 30) + near)));
    }
  }
  std::vector<float> s(phase.size()), c(phase.size());
  for (const Isa& isa : variants()) {
    isa.sincos(phase.data(), s.data(), c.data(), static_cast<int64_t>(phase.size()));
    double worst = 0;
    for (size_t i = 0; i < phase.size(); ++i) {
      // sinl and cosl of an angle below a quarter turn, so that π's rounding does not show near the zeros.
      const auto quarter = static_cast<int32_t>((static_cast<int64_t>(phase[i]) + (1 << 29)) >> 30);
      const double y =
          static_cast<double>(phase[i] - static_cast<int64_t>(quarter) * (1 << 30)) * 0x1p-31 * std::numbers::pi;
      const double turned[4] = {std::sin(y), std::cos(y), -std::sin(y), -std::cos(y)};
      worst = std::max({worst, ulps(s[i], turned[quarter & 3]), ulps(c[i], turned[(quarter + 1) & 3])});
    }
    EXPECT_LT(worst, 1.5) << isa.name;
  }
}

TEST(SinCos, ExactAtQuarterTurns) {
  const int32_t phase[] = {0, 1 << 30, std::numeric_limits<int32_t>::min(), -(1 << 30)};
  const float sine[] = {0, 1, 0, -1}, cosine[] = {1, 0, -1, 0};
  for (const Isa& isa : variants()) {
    float s[4], c[4];
    isa.sincos(phase, s, c, 4);
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(s[i], sine[i]) << isa.name << " " << i;
      EXPECT_EQ(c[i], cosine[i]) << isa.name << " " << i;
    }
  }
}

TEST(SinCos, StepsWrapAndRoundToNearest) {
  const float turns[] = {0.25f, -0.25f, 0.5f, -0.5f, 1e6f, 3.75f, 0x1p-32f, 0x1.8p-31f, -0x1.8p-32f, 0x1p-34f};
  const int32_t half = std::numeric_limits<int32_t>::min();
  const int32_t want[] = {1 << 30, -(1 << 30), half, half, 0, -(1 << 30), 1, 3, -2, 0};
  for (const Isa& isa : variants()) {
    int32_t got[10];
    isa.phase_of_turns(turns, got, 10);
    for (int i = 0; i < 10; ++i) EXPECT_EQ(got[i], want[i]) << isa.name << " " << turns[i];
  }
}

}  // namespace
}  // namespace krait
#endif
