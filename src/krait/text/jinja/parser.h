// Template source to statements. Refuses, by name and line, every construct that is not implemented.
#pragma once
#include <string_view>

#include "krait/text/jinja/ast.h"

namespace krait::text::jinja {

Body parse_template(std::string_view source);

}  // namespace krait::text::jinja
