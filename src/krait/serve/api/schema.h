// JSON Schema, the part that the API uses: one description of a request serves as its check and, in /openapi.json, as
// its documentation, so that the two cannot differ.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace krait::serve {

// Throws ServeError 400, naming the field and the rule that it breaks, unless `value` fits `schema`. Known: type (a
// name or a list), enum, const, minimum, maximum, minLength, maxLength (characters), minItems, maxItems, items,
// contains, properties, required, additionalProperties, propertyNames, minProperties, maxProperties, anyOf, if/then,
// not, pattern (PCRE-free: the subset of std::regex ECMAScript). An unknown keyword of a schema is kInternal;
// annotations (title, description, default, examples) are not.
void check_schema(const nlohmann::json& value, const nlohmann::json& schema);

// Parses a request body. Throws ServeError 400 if it is not JSON (with the place), nested deeper than 64, or not an
// object.
nlohmann::json parse_body(const std::string& body);

}  // namespace krait::serve
