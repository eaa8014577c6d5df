// Which type each tensor of a quantized model gets, and why. The rules know what is small and what is sensitive in a
// state space model; docs/quantization.md has the measurements behind them.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "krait/models/param_store.h"

namespace krait::quant {

// A named recipe: "Q4_K_M".
struct Mix {
  const char* name;
  int64_t file_type;  // general.file_type of GGUF
  DType base;         // most matrices
  DType raised;       // the first layers
  DType table;        // embedding and head
  DType small;        // x_proj and dt_proj
};
const std::vector<Mix>& mixes();
const Mix& find_mix(const std::string& name);  // any case; throws kUsage listing the names

// "q4_k", "F16", … -> a type that files can be written in; throws kUsage listing them.
DType parse_type(const std::string& name);

inline constexpr size_t kLongestPattern = 200;

struct MixOptions {
  // No rule but the base type.
  bool pure = false;
  // Regular expressions (ECMAScript without back references, at most kLongestPattern bytes, found anywhere in the
  // tensor's name in the file) and the type of what they match; the last that matches wins, and each must match
  // something that can be quantized.
  std::vector<std::pair<std::string, DType>> overrides;
};

struct PlannedTensor {
  std::string name;       // canonical
  std::string file_name;  // in the GGUF file
  Shape shape;
  bool vector = false;  // not an operand of a matmul: stays f32
  DType from = DType::kF32, type = DType::kF32;
  std::string reason;
  bool fallback = false;  // the rule's type does not fit the length of a row: this is another one
  std::string warning;    // empty, or what is risky about it

  int64_t bytes() const { return bytes_of(type, shape.numel()); }
  double bits_per_weight() const { return 8.0 * static_cast<double>(bytes()) / static_cast<double>(shape.numel()); }
};

// One entry a parameter, in the order of model_params(). Throws kUsage on an override that is malformed, matches
// nothing that can be quantized, or asks for a type that the rows do not fit.
std::vector<PlannedTensor> plan(const ModelSpec&, const ParamStore&, const Mix&, const MixOptions&);

// general.file_type: the mix's if most weights of the matrices have its base type or another of its large ones; else
// nothing, and the file is named after the type that most of them have.
std::optional<int64_t> file_type_of(const Mix&, const std::vector<PlannedTensor>&);

// Of the whole plan.
int64_t planned_weights(const std::vector<PlannedTensor>&);
int64_t planned_bytes(const std::vector<PlannedTensor>&);
double planned_bits_per_weight(const std::vector<PlannedTensor>&);

}  // namespace krait::quant
