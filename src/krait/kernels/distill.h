// Distillation: how far a row of logits is from a teacher's, and its gradient in the place of the teacher's.
#pragma once
#include <cstdint>

namespace krait {

// q = softmax(teacher[t] / temperature), p = softmax(logits[t] / temperature), both over v < V:
// kl[t] = Σ_v q_v·(log q_v − log p_v)                                       (Hinton, Vinyals and Dean 2015, §2)
// If grad: teacher[t][v] <- weight[t]·scale·(p_v − q_v) / temperature, the gradient of scale · Σ_t weight[t]·kl[t] by
// logits[t][v].
// A row whose target is negative or whose weight is 0 takes no part: its kl and gradient are 0. A NaN in a row that
// does makes its kl NaN. V is at least 1.
template <class Real>
struct DistillParamsOf {
  const Real* logits;  // [T, V], row stride ldl
  int64_t ldl;
  Real* teacher;  // [T, V], row stride ldt; read, and overwritten if grad
  int64_t ldt;
  const int32_t* target;  // [T]
  const float* weight;    // [T] or null (= 1)
  float scale, temperature;
  bool grad;
  Real* kl;  // [T]
  int64_t T, V;
};
using DistillParams = DistillParamsOf<float>;

}  // namespace krait
