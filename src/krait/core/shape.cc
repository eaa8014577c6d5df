#include "krait/core/shape.h"

#include <algorithm>

#include "krait/core/error.h"

namespace krait {

Shape::Shape(std::span<const int64_t> dims) {
  if (dims.size() > kMaxRank)
    fail_data("[shape] " + std::to_string(dims.size()) + " dimensions, at most 6 are supported");
  rank_ = static_cast<int>(dims.size());
  int64_t n = 1;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] < 0 || __builtin_mul_overflow(n, dims[i] == 0 ? 1 : dims[i], &n)) {
      fail_data("[shape] dimension " + std::to_string(dims[i]) + " is negative or the size overflows");
    }
    dims_[i] = dims[i];
  }
}

int64_t Shape::numel() const {
  int64_t n = 1;
  for (int64_t d : dims()) n *= d;
  return n;
}

bool Shape::operator==(const Shape& o) const { return std::ranges::equal(dims(), o.dims()); }

std::string Shape::str() const {
  std::string s = "[";
  for (int i = 0; i < rank_; ++i) s += (i ? ", " : "") + std::to_string((*this)[i]);
  return s + "]";
}

}  // namespace krait
