// sincos.h as callable symbols, linked into the tests only.
#include "krait/backends/cpu/isa/sincos.h"

namespace krait::KRAIT_ISA {

void probe_sincos(const int32_t* phase, float* sin, float* cos, int64_t n);
void probe_phase_of_turns(const float* turns, int32_t* phase, int64_t n);

void probe_sincos(const int32_t* phase, float* sin, float* cos, int64_t n) {
  for_vectors(n, [&](int64_t i, auto lanes) {
    const SinCos v = sincos(load_phase(phase + i, lanes));
    store(sin + i, v.sin, lanes);
    store(cos + i, v.cos, lanes);
  });
}

void probe_phase_of_turns(const float* turns, int32_t* phase, int64_t n) {
  for_vectors(n, [&](int64_t i, auto lanes) { store_phase(phase + i, phase_of_turns(load(turns + i, lanes)), lanes); });
}

}  // namespace krait::KRAIT_ISA
