#include "krait/io/gguf_types.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace krait::io {
namespace {

constexpr std::array<std::pair<uint32_t, DType>, 20> kKnown = {{
    {0, DType::kF32},   {1, DType::kF16},   {30, DType::kBF16}, {24, DType::kI8},     {25, DType::kI16},
    {26, DType::kI32},  {27, DType::kI64},  {28, DType::kF64},  {2, DType::kQ4_0},    {3, DType::kQ4_1},
    {6, DType::kQ5_0},  {7, DType::kQ5_1},  {8, DType::kQ8_0},  {10, DType::kQ2_K},   {11, DType::kQ3_K},
    {12, DType::kQ4_K}, {13, DType::kQ5_K}, {14, DType::kQ6_K}, {20, DType::kIQ4_NL}, {23, DType::kIQ4_XS},
}};

// Types of the format that are refused, by their names.
constexpr std::array<std::pair<uint32_t, const char*>, 15> kRefused = {{{9, "Q8_1"},
                                                                        {15, "Q8_K"},
                                                                        {16, "IQ2_XXS"},
                                                                        {17, "IQ2_XS"},
                                                                        {18, "IQ3_XXS"},
                                                                        {19, "IQ1_S"},
                                                                        {21, "IQ3_S"},
                                                                        {22, "IQ2_S"},
                                                                        {29, "IQ1_M"},
                                                                        {34, "TQ1_0"},
                                                                        {35, "TQ2_0"},
                                                                        {39, "MXFP4"},
                                                                        {40, "NVFP4"},
                                                                        {41, "Q1_0"},
                                                                        {42, "Q2_0"}}};

}  // namespace

std::optional<DType> dtype_of_ggml(uint32_t type) {
  for (const auto& [number, dtype] : kKnown) {
    if (number == type) return dtype;
  }
  return std::nullopt;
}

std::optional<uint32_t> ggml_of_dtype(DType dtype) {
  for (const auto& [number, known] : kKnown) {
    if (known == dtype) return number;
  }
  return std::nullopt;
}

std::string ggml_type_name(uint32_t type) {
  if (const std::optional<DType> known = dtype_of_ggml(type)) {
    std::string name(name_of(*known));
    std::ranges::transform(name, name.begin(),
                           [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
    return name;
  }
  for (const auto& [number, name] : kRefused) {
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
