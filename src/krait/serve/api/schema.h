// JSON Schema, the part that the API uses: one description of a request serves as its check and, in /openapi.json, as
// its documentation, so that the two cannot differ.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace krait::serve {

// Throws ServeError 400, naming the field and the rule that it breaks, unless `value` fits `schema`. Known: type (a
// name or a list), enum, const, minimum, maximum, minLength, maxLength (characters), minItems, maxItems, items,
// contains, properties, required, additionalProperties, propertyNames, minProperties, maxProperties, anyOf, if/then,
// not, pattern (ECMAScript, as std::regex has it).
void check_schema(const nlohmann::json& value, const nlohmann::json& schema);
// Throws kInternal if a schema has other keywords than these and annotations (title, description, default, examples).
void check_keywords(const nlohmann::json& schema);

size_t characters(const std::string& text);  // of UTF-8

// Parses a request body. Throws ServeError 400 if it is not JSON (with the place), nested deeper than 64, or not an
// object.
nlohmann::json parse_body(const std::string& body);

}  // namespace krait::serve
