// Cross-entropy of rows of logits, and its gradient in their place.
#pragma once
#include <cstdint>

namespace krait {

// lse = log Σ_{v<V} e^{logits[t][v]};  nll[t] = lse − logits[t][target[t]], lse_out[t] = lse
// If grad: logits[t][v] <- weight[t]·scale·(softmax_v − [v = target] + 2·z_loss·lse·softmax_v), v < V; columns from V
// on become 0. That is the gradient of scale · Σ_t weight[t]·(nll[t] + z_loss·lse²).
// A row whose target is negative or whose weight is 0 takes no part: its nll, lse_out and gradient are 0. A NaN among
// the V logits of a row that does makes its nll and lse_out NaN.
template <class Real>
struct CrossEntropyParamsOf {
  Real* logits;  // [T, columns], row stride ldl; read, and overwritten if grad
  int64_t ldl, columns;
  const int32_t* target;  // [T], < V
  const float* weight;    // [T] or null (= 1)
  float scale, z_loss;
  bool grad;
  Real* nll;      // [T]
  Real* lse_out;  // [T]
  int64_t T, V;   // 1 <= V <= columns
};
using CrossEntropyParams = CrossEntropyParamsOf<float>;

}  // namespace krait
