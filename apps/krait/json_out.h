// JSON as commands print it.
#pragma once
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "krait/core/shape.h"

namespace krait::cli {

// One document and a newline on standard output. Bytes of names that are not UTF-8 become U+FFFD.
inline void print_json(const nlohmann::ordered_json& j, int indent = 2) {
  std::printf("%s\n", j.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
}

inline nlohmann::ordered_json to_json(const Shape& shape) {
  nlohmann::ordered_json dims = nlohmann::ordered_json::array();
  for (const int64_t d : shape.dims()) dims.push_back(d);
  return dims;
}

// Whole numbers as integers; JSON has no infinity.
inline nlohmann::ordered_json to_json(double v) {
  if (!std::isfinite(v)) return v > 0 ? "inf" : v < 0 ? "-inf" : "nan";
  if (v == std::floor(v) && std::abs(v) < 0x1p53) return static_cast<int64_t>(v);
  return v;
}

// "[16, 64]"
inline std::string shape_text(const nlohmann::ordered_json& dims) {
  std::string s;
  for (const auto& d : dims) s += (s.empty() ? "" : ", ") + d.dump();
  return "[" + s + "]";
}

}  // namespace krait::cli
