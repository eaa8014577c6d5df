#include "krait/backends/cpu/cpu_backend.h"

#include "krait/backends/cpu/cpu_features.h"

namespace krait {

#if defined(__x86_64__)
namespace avx512_bf16 {
const KernelSet& kernel_set();
}
namespace avx512 {
const KernelSet& kernel_set();
}
namespace avx2 {
const KernelSet& kernel_set();
}
#endif
namespace scalar {
const KernelSet& kernel_set();
}

std::vector<const KernelSet*> cpu_kernel_sets() {
  std::vector<const KernelSet*> sets;
#if defined(__x86_64__)
  const CpuFeatures& cpu = cpu_features();
  if (cpu.avx512_bf16) sets.push_back(&avx512_bf16::kernel_set());
  if (cpu.avx512) sets.push_back(&avx512::kernel_set());
  if (cpu.avx2) sets.push_back(&avx2::kernel_set());
#endif
  sets.push_back(&scalar::kernel_set());
  return sets;
}

const KernelSet& cpu_kernels() {
  static const KernelSet& best = *cpu_kernel_sets().front();
  return best;
}

const KernelSet* cpu_kernels(std::string_view name) {
  for (const KernelSet* set : cpu_kernel_sets()) {
    if (name == set->name) return set;
  }
  return nullptr;
}

std::string cpu_description() {
  const CpuFeatures& cpu = cpu_features();
  std::string s = (cpu.model.empty() ? std::string("unknown CPU") : cpu.model) + ":";
  if (cpu.avx2) s += " avx2 fma f16c bmi2";
  if (cpu.avx512) s += " avx512";
  if (cpu.avx512_bf16) s += " avx512-bf16 vnni";
  if (!cpu.avx2) s += " no vector instructions in use";
  return s;
}

}  // namespace krait
