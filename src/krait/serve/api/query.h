// The query of a target: whole numbers, each named by its route.
#pragma once
#include <cstdint>
#include <optional>
#include <span>

#include "krait/serve/http/exchange.h"

namespace krait::serve {

struct QueryNumber {
  const char* name;
  int64_t least, most;
};
inline constexpr QueryNumber kLimit{"limit", 1, 1000}, kTurns{"turns", 0, int64_t{1} << 31};

// Throws ServeError 400: a parameter that is not among the known ones, one given twice, what is no number within
// bounds.
void check_query(const HttpRequest&, std::span<const QueryNumber> known);

// Of a checked query; none: not given.
std::optional<int64_t> query_number(const HttpRequest&, const QueryNumber&);

}  // namespace krait::serve
