#include "krait/serve/api/query.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "krait/serve/serve_error.h"

namespace krait::serve {
namespace {

int64_t number(const std::string& value, const QueryNumber& q) {
  int64_t n = 0;
  const char* end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, n);
  if (error != std::errc() || stop != end || n < q.least || n > q.most) {
    throw ServeError(400, "invalid_value", fmt::format("[request] '{}' wants {} to {}", q.name, q.least, q.most),
                     q.name);
  }
  return n;
}

}  // namespace

void check_query(const HttpRequest& r, std::span<const QueryNumber> known) {
  std::set<std::string> seen;
  for (const auto& [key, value] : r.query) {
    const auto here = std::ranges::find_if(known, [&](const QueryNumber& q) { return key == q.name; });
    if (here == known.end()) {
      throw ServeError(400, "unknown_parameter", fmt::format("[request] '{}' is not known here", key), key);
    }
    if (!seen.insert(key).second) {
      throw ServeError(400, "invalid_value", fmt::format("[request] '{}' is given twice", key), key);
    }
    number(value, *here);
  }
}

std::optional<int64_t> query_number(const HttpRequest& r, const QueryNumber& q) {
  for (const auto& [key, value] : r.query) {
    if (key == q.name) return number(value, q);
  }
  return {};
}

}  // namespace krait::serve
