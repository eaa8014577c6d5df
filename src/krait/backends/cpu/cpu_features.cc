#include "krait/backends/cpu/cpu_features.h"

#include <fstream>

namespace krait {
namespace {

// The brand string of /proc/cpuinfo; empty where there is none.
std::string model_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    return colon == std::string::npos ? std::string() : line.substr(colon + 2);
  }
  return {};
}

CpuFeatures detect() {
  CpuFeatures f;
  f.model = model_name();
#if defined(__x86_64__)
  __builtin_cpu_init();
  const auto has = [](int supported) { return supported != 0; };
  f.avx2 = has(__builtin_cpu_supports("avx2")) && has(__builtin_cpu_supports("fma")) &&
           has(__builtin_cpu_supports("f16c")) && has(__builtin_cpu_supports("bmi2"));
  f.avx512 = f.avx2 && has(__builtin_cpu_supports("avx512f")) && has(__builtin_cpu_supports("avx512bw")) &&
             has(__builtin_cpu_supports("avx512dq")) && has(__builtin_cpu_supports("avx512vl"));
  f.avx512_bf16 = f.avx512 && has(__builtin_cpu_supports("avx512bf16")) && has(__builtin_cpu_supports("avx512vnni"));
#endif
  return f;
}

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

}  // namespace krait
