// Published shapes by name ("mamba2-130m"), and fresh random weights for them.
#pragma once
#include <string>
#include <vector>

#include "krait/core/thread_pool.h"
#include "krait/models/param_store.h"

namespace krait {

class ThreadPool;

// Names that preset() knows, in the order of the families.
std::vector<std::string> preset_names();

// The architecture of a published model (spec/mamba.md §1.7); throws kUsage listing the names if there is none.
ModelSpec preset(const std::string& name);

// Every parameter drawn as the original initialiser does (spec/mamba.md §1.5, §2.2, §3.2, §4.2): deterministic in
// (spec, seed), independent of threads. Matmul operands and tables in `dtype` (kF32, kBF16, kF16), the rest in f32.
ParamStore random_params(const ModelSpec&, uint64_t seed, DType dtype, ThreadPool&);

}  // namespace krait
