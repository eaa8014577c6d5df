// The page at "/", as it stands in the program.
#pragma once
#include <string_view>

#include "krait/serve/http/exchange.h"

namespace krait::serve {

std::string_view page_html();
std::string_view page_css();
std::string_view page_js();
Headers page_headers();  // what a browser may load and do: only what comes from this server

}  // namespace krait::serve
