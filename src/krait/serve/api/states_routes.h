// /v1/states: conversations and their states, seen from outside. Each of these may block on the stores.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "krait/serve/api/context.h"
#include "krait/serve/http/exchange.h"

namespace krait::serve {

HttpResponse list_states(ApiContext&, const HttpRequest&, const std::string& tenant);  // ?limit=N
HttpResponse get_state(ApiContext&, const std::string& id, const std::string& tenant);
HttpResponse delete_state(ApiContext&, const std::string& id, const std::string& tenant);
HttpResponse export_state(ApiContext&, const HttpRequest&, const std::string& id,
                          const std::string& tenant);  // ?turns=N
HttpResponse import_state(ApiContext&, const HttpRequest&, const std::string& id, const std::string& tenant);
HttpResponse fork_state(ApiContext&, const nlohmann::json& body, const std::string& id, const std::string& tenant);
HttpResponse rewind_state(ApiContext&, const nlohmann::json& body, const std::string& id, const std::string& tenant);

}  // namespace krait::serve
