#include "krait/io/gguf_types.h"

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace krait::io {
namespace {

constexpr std::array<std::pair<uint32_t, DType>, 8> kPlain = {{{0, DType::kF32},
                                                               {1, DType::kF16},
                                                               {30, DType::kBF16},
                                                               {24, DType::kI8},
                                                               {25, DType::kI16},
                                                               {26, DType::kI32},
                                                               {27, DType::kI64},
                                                               {28, DType::kF64}}};

constexpr std::array<std::pair<uint32_t, const char*>, 27> kBlocks = {
    {{2, "Q4_0"},     {3, "Q4_1"},   {6, "Q5_0"},    {7, "Q5_1"},   {8, "Q8_0"},   {9, "Q8_1"},     {10, "Q2_K"},
     {11, "Q3_K"},    {12, "Q4_K"},  {13, "Q5_K"},   {14, "Q6_K"},  {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
     {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"}, {23, "IQ4_XS"},  {29, "IQ1_M"},
     {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"},  {40, "NVFP4"}, {41, "Q1_0"},  {42, "Q2_0"}}};

}  // namespace

std::optional<DType> dtype_of_ggml(uint32_t type) {
  for (const auto& [number, dtype] : kPlain) {
    if (number == type) return dtype;
  }
  return std::nullopt;
}

std::optional<uint32_t> ggml_of_dtype(DType dtype) {
  for (const auto& [number, plain] : kPlain) {
    if (plain == dtype) return number;
  }
  return std::nullopt;
}

std::string ggml_type_name(uint32_t type) {
  for (const auto& [number, name] : kBlocks) {
    if (number == type) return name;
  }
  return "type " + std::to_string(type);
}

double decimal_of(float v) {
  if (!std::isfinite(v)) return static_cast<double>(v);
  char text[64];
  const char* end = std::to_chars(text, text + sizeof text, v).ptr;
  double d = 0;
  std::from_chars(text, end, d);
  return d;
}

}  // namespace krait::io
