// The target of a request: "/v1/models?limit=3" -> path and query, decoded; what could mean two things is refused.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "krait/serve/http/exchange.h"

namespace krait::serve {

// Why a target is refused; null: path and query of `request` are set. Only the origin form ("/path?query") is taken,
// and
// "*" of OPTIONS, which becomes "/". Refused: other forms, fragments, bytes outside of printable ASCII, bad escapes;
// and in the decoded path "." and ".." segments (behind '/' or '\'), control characters, what is not UTF-8.
const char* parse_target(std::string_view target, HttpRequest& request);

// Percent-decoded; nothing: a bad escape. `plus_is_space`: as in forms and queries.
std::optional<std::string> percent_decode(std::string_view s, bool plus_is_space);

}  // namespace krait::serve
