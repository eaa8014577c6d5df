// The query of a target: whole numbers, each named by its route.
#pragma once
#include <cstdint>
#include <optional>

#include "krait/serve/http/exchange.h"

namespace krait::serve {

struct Route;

struct QueryNumber {
  const char* name;
  int64_t least, most;
};
inline constexpr QueryNumber kLimit{"limit", 1, 1000}, kTurns{"turns", 0, int64_t{1} << 31};

// Throws ServeError 400: a parameter that the route does not know, one given twice, what is no number within bounds.
// Routes without a key take anything: probes and pages are asked for with parameters that only caches read.
void check_query(const HttpRequest&, const Route&);

// Of a checked query; none: not given.
std::optional<int64_t> query_number(const HttpRequest&, const QueryNumber&);

}  // namespace krait::serve
