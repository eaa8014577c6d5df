// The CPU backend: kernel sets for several instruction sets in one program, chosen at run time.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "krait/kernels/kernel_set.h"

namespace krait {

// The best set this CPU can run.
const KernelSet& cpu_kernels();

// All sets this CPU can run, best first; the last is "cpu-scalar", which runs everywhere.
std::vector<const KernelSet*> cpu_kernel_sets();

// By name ("cpu-avx2"); null if there is no such set or this CPU cannot run it.
const KernelSet* cpu_kernels(std::string_view name);

// Model name and the features that choose the set: "AMD EPYC: avx2 fma f16c bmi2 avx512 avx512-bf16".
std::string cpu_description();

}  // namespace krait
