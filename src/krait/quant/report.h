// What a quantization did to a model, as data, as JSON and as a page.
#pragma once
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "krait/quant/compare.h"
#include "krait/quant/quantize.h"

namespace krait::quant {

// A text that was read, for the report.
struct TextUse {
  std::string name;
  int64_t tokens = 0;
};

struct Report {
  std::string model, out, type, architecture;
  int64_t bytes_before = 0;  // of the tensors
  std::vector<PlannedTensor> tensors;
  std::vector<TensorError> errors;             // one a tensor
  std::vector<std::optional<double>> effects;  // mean KL when only that tensor is quantized; empty: not measured
  std::optional<TextUse> calibration;
  TextUse evaluation, effects_text;
  TextComparison comparison;
  std::vector<DriftPoint> drift;

  int64_t bytes() const { return planned_bytes(tensors); }
  int64_t weights() const { return planned_weights(tensors); }
  double bits_per_weight() const { return planned_bits_per_weight(tensors); }
};

// Mean KL on `ids` of the model with one tensor quantized and the others as they are, for each quantized matrix of the
// plan; nothing for the others. `advance` is told the tokens of each step; plan × ids in all.
std::vector<std::optional<double>> effects_of_each(const Model& original, const ParamStore& quantized,
                                                   const std::vector<PlannedTensor>&, std::span<const int32_t> ids,
                                                   const std::function<void(int64_t)>& advance);

std::string to_json(const Report&);
std::string to_html(const Report&);  // one file, nothing loaded from elsewhere

}  // namespace krait::quant
