// Error bounds of the tests, each derived; raising one is a visible change.
#pragma once
#include <cmath>
#include <cstdint>

#include "krait/kernels/matmul.h"

namespace krait::tolerance {

constexpr double kF32Unit = 0x1p-24;  // unit roundoff of f32

// |y − exact| of one matmul output, for activations as the compute mode defines them (kernels/reference/matmul.h).
// K products accumulated in f32, in any order, err by at most λ·sqrt(K)·u·Σ|x_k·w_k| with probability above
// 1 − 2K·exp(−λ²/2) (Higham and Mary, A new approach to probabilistic rounding error analysis, 2019); λ = 7 leaves
// 5e-11·K, and Σ|x_k·w_k| <= ‖x‖·‖w‖. The sum with the bias rounds once more. Splitting x in two bf16 (kBF16x2) drops
// at most 2^-17·|x_k|: high leaves half a unit of 8 bits, low half a unit of 8 bits of the rest. Dot instructions flush
// subnormals: K + 1 quantities below 2^-126.
inline double matmul(Compute compute, int64_t K, double norm_x, double norm_w, double abs_y) {
  const double sum = 7.0 * std::sqrt(static_cast<double>(K)) * kF32Unit * norm_x * norm_w;
  const double split = compute == Compute::kBF16x2 ? 0x1p-17 * norm_x * norm_w : 0.0;
  const double flush = compute == Compute::kF32 ? 0.0 : static_cast<double>(K + 1) * 0x1p-126 * (1.0 + norm_x + norm_w);
  return sum + split + flush + kF32Unit * abs_y;
}

// |y − exact| of one output of the matmul with a block type (kernels/reference/block_matmul.h) against x [K] times the
// dequantized weight w [K]. Quantized to 127 steps of the largest |x| of its 32 columns, x errs by half a step (and two
// roundings of 2^-24 of 127 steps, below 2^-16 of one): at most Σ|w_k|·largest/254·(1 + 2^-15); the rest as matmul's,
// with Σ|x_k·w_k| grown by the offsets that cancel against the codes: largest·2·max|w| of the row a column stands in.
inline double block_matmul(const float* x, const float* w, int64_t K, double abs_y) {
  double steps = 0, products = 0, largest_w = 0;
  for (int64_t k = 0; k < K; ++k) largest_w = std::fmax(largest_w, std::fabs(static_cast<double>(w[k])));
  for (int64_t c = 0; c < K; c += 32) {
    double largest = 0, sum = 0;
    for (int64_t k = c; k < c + 32; ++k) {
      largest = std::fmax(largest, std::fabs(static_cast<double>(x[k])));
      sum += std::fabs(static_cast<double>(w[k]));
    }
    steps += largest / 254 * (1 + 0x1p-15) * sum;
    products += largest * (sum + 64 * largest_w);
  }
  return steps + 7.0 * std::sqrt(static_cast<double>(K)) * kF32Unit * products + kF32Unit * abs_y;
}

// silu and softplus in f32: below 2.5 units in the last place (vec_test.cc), so 5 u relative; silu underflows to zero
// where its exponential overflows, at 88.7·e^-88.7.
inline double silu(double abs_y) { return 5 * kF32Unit * abs_y + 3e-37; }

// One output of a norm: y = (r − mean)·scale·w + b. The sums over D positive terms err by at most 7·sqrt(D)·u relative
// (as for matmul), the scale by half of that; r, scale (4 operations) and the products round 10 times. The mean of
// kLayer (mean_abs = mean |r|; 0 for kRms) errs by 7·sqrt(D)·u·mean_abs, of which a share reaches the variance too.
inline double norm(int64_t D, double abs_normalised, double scale_w, double mean_abs, double abs_b) {
  const double sum = 7.0 * std::sqrt(static_cast<double>(D)) * kF32Unit;
  return (sum / 2 + 10 * kF32Unit) * abs_normalised + (2 * sum + kF32Unit) * mean_abs * scale_w + kF32Unit * abs_b;
}

// One output of a convolution before silu: W products and additions in order, starting from the bias.
inline double conv(int64_t W, double sum_abs) { return static_cast<double>(W + 1) * kF32Unit * sum_abs; }

// d silu / du = s·(1 + u·(1 − s)), s = sigmoid(u) with 5 u relative: 1 − s errs by 6 u at most, the rest rounds four
// times.
inline double silu_slope(double u) {
  const double s = 1 / (1 + std::exp(-u));
  return 11 * kF32Unit * s * (1 + std::fabs(u)) + 5 * kF32Unit * std::fabs(s * (1 + u * (1 - s))) + 1e-36;
}

// What a row of a norm's gradient adds up: with v = (r − mean)·scale and dv the gradient of v.
struct NormGradRow {
  int64_t D;
  double scale, mean_abs_dv, mean_abs_dv_v, mean_dv_v;
  double mean_abs_dv_error_v;  // mean of |dv|·(error of v)
};
// One element of scale·(dv − mean(dv) − v·mean(dv·v)), in a sum that comes to `abs_dr`: the means are sums as in
// norm(); dv and v came with their own errors, then four roundings.
inline double norm_grad(const NormGradRow& row, double abs_dv, double dv_error, double abs_v, double v_error,
                        double abs_dr) {
  const double sum = 7.0 * std::sqrt(static_cast<double>(row.D)) * kF32Unit;
  const double inner = dv_error + (sum + 4 * kF32Unit) * (abs_dv + row.mean_abs_dv + abs_v * row.mean_abs_dv_v) +
                       v_error * std::fabs(row.mean_dv_v) + abs_v * row.mean_abs_dv_error_v;
  const double size = abs_dv + row.mean_abs_dv + abs_v * std::fabs(row.mean_dv_v);
  return row.scale * (inner + (sum / 2 + 6 * kF32Unit) * size) + kF32Unit * abs_dr;
}

// Error bounds of a scan, carried along with the oracle as it walks a sequence: all are worst cases, none statistical.
// Step size dt = softplus(v): v = raw + bias rounds once, and |d softplus| <= softplus, so |v|·u more, relative.
inline double step_size(double v) { return (6 + std::fabs(v)) * kF32Unit; }
// Decay e^x, x = dt·A: relative; the error of dt and four roundings enter times |x|, 2^x itself errs by 1.2 ulp.
inline double decay(double x, double dt_error) { return std::fabs(x) * (dt_error + 4 * kF32Unit) + 2.4 * kF32Unit; }
// h = decay·h + input: absolute; `h_error` is that of the state before, input = dt·x·B.
inline double state(double decay, double decay_error, double h, double h_error, double input, double dt_error) {
  return decay * h_error + std::fabs(decay * h) * (decay_error + 3 * kF32Unit) +
         std::fabs(input) * (dt_error + 4 * kF32Unit);
}

}  // namespace krait::tolerance
