// Runs a compiled template.
#pragma once
#include <string>

#include "krait/text/jinja/ast.h"

namespace krait::text::jinja {

// `variables`: what the template sees beside range, dict, namespace and raise_exception. Throws kBadData: the message
// of raise_exception, a type error, or more than Context allows.
std::string render_template(const Body&, Context&, Entries variables);

}  // namespace krait::text::jinja
