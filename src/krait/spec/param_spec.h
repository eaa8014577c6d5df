// ParamSpec: a parameter as a mixer declares it: name, shape, role, and how a fresh model draws it.
#pragma once
#include <cstdint>
#include <string>

#include "krait/core/shape.h"

namespace krait {

enum class ParamRole : uint8_t {
  kMatmul,  // operand of a matmul [N, K]; may be stored in a 16-bit or block type
  kTable,   // embedding rows [V, D]; stored like matmul operands
  kVector,  // everything else: used as f32 whatever the file holds
};

// Distribution of a fresh parameter (spec/mamba.md §1.5, §2.2, §3.2, §4.2).
struct Init {
  enum class Kind : uint8_t {
    kConstant,    // a
    kUniform,     // ±a
    kNormal,      // standard deviation a
    kLogIndex,    // [E, N]: log(n + 1)
    kLogUniform,  // log of U(a, b)
    kDtBias,      // softplus⁻¹ of exp(U(log a, log b)) clamped to >= floor
  };
  Kind kind = Kind::kConstant;
  double a = 0, b = 0, floor = 0;

  static Init constant(double v) { return {Kind::kConstant, v, 0, 0}; }
  static Init uniform(double bound) { return {Kind::kUniform, bound, 0, 0}; }
  static Init normal(double stddev) { return {Kind::kNormal, stddev, 0, 0}; }
  static Init log_index() { return {Kind::kLogIndex, 0, 0, 0}; }
  static Init log_uniform(double lo, double hi) { return {Kind::kLogUniform, lo, hi, 0}; }
  static Init dt_bias(double lo, double hi, double floor_) { return {Kind::kDtBias, lo, hi, floor_}; }
};

struct ParamSpec {
  std::string name;  // a mixer's are relative to its prefix: "in_proj.weight"
  Shape shape;       // as in the original checkpoints
  ParamRole role = ParamRole::kVector;
  Init init;
  // Writes into the residual stream: a fresh draw is divided by sqrt(n_layer) (spec/mamba.md §1.5).
  bool residual_output = false;
};

}  // namespace krait
