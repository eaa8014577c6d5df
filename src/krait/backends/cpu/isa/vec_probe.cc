// The functions of vec.h as callable symbols, linked into the tests only.
#include "krait/backends/cpu/isa/vec.h"

namespace krait::KRAIT_ISA {

void probe_exp(const float*, float*, int64_t);
void probe_exp2(const float*, float*, int64_t);
void probe_log1p_unit(const float*, float*, int64_t);
void probe_softplus(const float*, float*, int64_t);
void probe_sigmoid(const float*, float*, int64_t);
void probe_silu(const float*, float*, int64_t);
void probe_tanh(const float*, float*, int64_t);
void probe_rsqrt(const float*, float*, int64_t);
float probe_sum(const float*, int64_t);

// y[i] = f(x[i]); y may be x.
#define KRAIT_PROBE(f)                                                                          \
  void probe_##f(const float* x, float* y, int64_t n) {                                         \
    for_vectors(n, [&](int64_t i, auto lanes) { store(y + i, f(load(x + i, lanes)), lanes); }); \
  }
KRAIT_PROBE(exp)
KRAIT_PROBE(exp2)
KRAIT_PROBE(log1p_unit)
KRAIT_PROBE(softplus)
KRAIT_PROBE(sigmoid)
KRAIT_PROBE(silu)
KRAIT_PROBE(tanh)
KRAIT_PROBE(rsqrt)

float probe_sum(const float* x, int64_t n) {
  Vec s = zero();
  for_vectors(n, [&](int64_t i, auto lanes) { s = add(s, keep(load(x + i, lanes), lanes)); });
  return sum(s);
}

}  // namespace krait::KRAIT_ISA
