// The loss of a language model, fused with its head: the logits of all tokens never exist at once.
#pragma once
#include <span>

#include "krait/ops/weight.h"

namespace krait {

// Whom the model shall follow: the loss becomes
// scale · Σ_t weight_t·((1 − w)·(nll_t + z_loss·lse_t²) + w·temperature²·KL_t), KL_t that of the softmax of the
// teacher's logits / temperature from the model's, over the ids below `vocab_size`.
struct Teacher {
  const Runtime& runtime;
  const Weight& head;  // [V'', D'']
  Tensor x;            // [T, D''], what the teacher's head reads
  float weight = 0.5;  // w, in 0 .. 1
  float temperature = 1;
};

struct LossOptions {
  std::span<const int32_t> targets;  // [T]; negative: this token has none
  std::span<const float> weights;    // [T] (loss mask), or empty (all 1)
  int64_t vocab_size = 0;            // targets lie below it; the softmax is over all rows of the head, padded ones too
  float scale = 1;                   // the loss is scale · Σ_t weight_t·(nll_t + z_loss·lse_t²)
  float z_loss = 0;
  const Teacher* teacher = nullptr;  // null: none, w = 0
};

struct TokenLosses {
  Tensor nll;  // [T] −log p(target), without weight and scale; 0 where there is none or its weight is 0
  Tensor lse;  // [T] log of the softmax's denominator; 0 there, too
  Tensor kl;   // [T] with a teacher, without weight, scale and temperature²; 0 there, too
};

// x [T, D], head [V', D]. Under a tape the gradients of x and of the head's rows are added to at once: backward() goes
// on from x. Throws kBadData on a target outside the vocabulary.
TokenLosses cross_entropy(ForwardContext&, const Tensor& x, const Weight& head, const LossOptions&);

}  // namespace krait
