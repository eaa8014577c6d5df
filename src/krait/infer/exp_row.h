// Loops over a row of logits, several at a time. Each element and each sum is computed in one fixed way, the same on
// every instruction set, so that what is drawn is a function of the logits alone.
#pragma once
#include <span>

namespace krait {

inline constexpr size_t kRowBlock = 64;  // ids that are summed together

// The largest logit; NaN if one of them is NaN or +infinity.
float largest(std::span<const float> logits);

// weights[i] = exp((logits[i] − best) / temperature), within 2 ulp; 0 below exp(−708). No logit is larger than `best`.
// sums[b]: of the weights of block b, in a fixed order; one a block of kRowBlock ids.
// `weights` has room for whole blocks; behind the last id they are 0.
void exp_row(std::span<const float> logits, float best, double temperature, std::span<double> weights,
             std::span<double> sums);

}  // namespace krait
